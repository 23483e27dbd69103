"""A numeric feature as a recipe chooses it, and the columns that it has in a snapshot.

Not for what the features mean (`catalogue`) nor for computing them (`pipelines.snapshot.features`).
"""

from collections.abc import Collection, Sequence
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipelines.contracts.base import Frozen
from pipelines.contracts.features.catalogue import (
    BASELINE_FEATURES,
    LOG_TABLES,
    FeatureMeaning,
    Option,
    meaning_of,
)

_OWN = "<package.module>:<function>"


class NumericFeature(Frozen):
    """A number per candidate that the snapshot computes from rows known before the request.

    An option that is not given has the value that docs/features.md shows. It is left out of the
    JSON form, so that a recipe's digest does not change when features get new options.
    """

    name: str = Field(description="Which feature; docs/features.md lists them.")
    days: float | None = Field(
        default=None, gt=0, le=3660, description="Trailing window of user_activity, days."
    )
    num_actions: int | None = Field(
        default=None, ge=1, le=2000, description="Newest actions that a similarity looks at."
    )
    half_life_days: float | None = Field(
        default=None, gt=0, le=3660, description="Age that halves an action's weight, days."
    )
    gap_minutes: float | None = Field(
        default=None, gt=0, le=1440, description="Silence that ends a session, minutes."
    )
    column: str | None = Field(
        default=None, min_length=1, description="Column of pins with a time in ms, for pin_age."
    )
    category: str | None = Field(
        default=None, min_length=1, description="A categorical feature of pins."
    )
    may_be_missing: bool | None = Field(
        default=None, description="An own function may return NaN for 'not known'."
    )
    source_digest: str | None = Field(
        default=None,
        pattern=r"[0-9a-f]{64}",
        description="sha256 of the file in which an own function stands. Who reads the recipe sets "
        "it, whatever it says; None for other features.",
    )

    @model_validator(mode="after")
    def _options_belong_to_the_feature(self) -> Self:
        options = self.meaning.options
        settable = self.model_fields_set - {"name"} - ({"source_digest"} if self.is_own else set())
        given = [n for n in settable if getattr(self, n) is not None]
        foreign = sorted(set(given) - set(options))
        if foreign:
            raise ValueError(
                f"features.numeric: {self.name!r} has no option {foreign[0]!r}; expected "
                f"{f'some of {sorted(options)}' if options else 'no option'}; leave it out"
            )
        if "category" in options and self.category is None:
            raise ValueError(
                f"features.numeric: {self.name!r} needs the option 'category'; set it to the name "
                f"of a categorical feature of the table pins"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def meaning(self) -> FeatureMeaning:
        """What the feature is."""
        return meaning_of(self.name)

    @property
    def is_own(self) -> bool:
        """The feature is a function of the recipe's author, named by its import path."""
        return self.meaning.name == _OWN

    @property
    def as_asked(self) -> Self:
        """The feature as a recipe asks for it, whatever an own function's source was then."""
        return self.model_copy(update={"source_digest": None})

    @property
    def has_flag(self) -> bool:
        """The feature may be missing, and a second column says where it is."""
        if self.is_own:
            return bool(self.may_be_missing)
        return bool(self.meaning.may_be_missing)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its numbers: its own, then that of its flag where it may be missing."""
        return (self.name, flag_name(self.name)) if self.has_flag else (self.name,)

    @property
    def action_type(self) -> str | None:
        """The action type that `user_actions:<action_type>` counts; None for other features."""
        is_count = self.meaning.name == "user_actions:<action_type>"
        return self.name.partition(":")[2] if is_count else None

    @property
    def label(self) -> str:
        """The feature with the options that were given, as people read it."""
        options = self.model_dump(exclude={"name", "source_digest"})
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        return f"{self.name} ({given})" if given else self.name

    def column_of(self, table: str) -> str | None:
        """Return the number column of an event log table that the feature reads, or None."""
        if self.meaning.name == f"{table}.<column>":
            return self.name.partition(".")[2]
        return self.column if table == "pins" else None

    def option(self, name: str) -> Option:
        """Return an option's value: the one given, or else the catalogue's."""
        given: Option | None = getattr(self, name)
        return self.meaning.options[name] if given is None else given


def flag_name(name: str) -> str:
    """Return the name of the number that is 1 where a feature is missing."""
    return f"{name}_missing"


def held_features(numeric: Sequence[NumericFeature]) -> tuple[NumericFeature, ...]:
    """Return the features that a snapshot holds: those of the baselines, then the recipe's others.

    Where the recipe gives a baseline's feature its own options, the snapshot holds that one.
    """
    chosen = {feature.name: feature for feature in numeric}
    held = {name: NumericFeature(name=name) for name in BASELINE_FEATURES} | chosen
    return tuple(held.values())


def number_columns(numeric: Sequence[NumericFeature], table: str) -> tuple[str, ...]:
    """Return the number columns of an event log table that features read, each once, in order."""
    assert table in LOG_TABLES
    found = (feature.column_of(table) for feature in numeric)
    return tuple(dict.fromkeys(column for column in found if column is not None))


def check_numeric(
    numeric: Sequence[NumericFeature],
    action_types: Collection[str],
    categories_of_pins: Collection[str],
) -> None:
    """Refuse features that the rest of a recipe cannot feed.

    Raises:
        ValueError: a feature counts an action type that is not in the vocabulary or names a
            category that is not a categorical feature of pins, or two have one column.
    """
    for feature in numeric:
        counted = feature.action_type
        if counted is not None and counted not in action_types:
            raise ValueError(
                f"features.numeric: {feature.name!r} counts an action type that is not in "
                f"features.action_types {tuple(action_types)}; add it there or correct the name"
            )
        if feature.category is not None and feature.category not in categories_of_pins:
            raise ValueError(
                f"features.numeric: {feature.name!r} has category={feature.category!r}; expected "
                f"a categorical feature of pins: {tuple(categories_of_pins)}; add it to "
                f"features.categorical with table='pins'"
            )
    names = [name for feature in held_features(numeric) for name in feature.inputs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"features.numeric: two features have the column {repeated[0]!r}; rename the column "
            f"in the event log"
        )
