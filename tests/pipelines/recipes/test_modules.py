"""A recipe that is a function of somebody's module, and everything that may be wrong with it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.recipes import make_recipe, smoke

NUMBERS = itertools.count()
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module of that text and return its name, which no other test has."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(text: str) -> str:
        name = f"somebodys_recipes_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return made


def test_the_function_s_value_is_the_recipe(write: Write) -> None:
    name = write(
        "from pipelines.recipes import smoke\n"
        "def careful():\n"
        "    base = smoke()\n"
        "    slow = base.training.model_copy(update={'learning_rate': 0.0005})\n"
        "    return base.model_copy(update={'recipe': 'careful', 'training': slow})\n"
    )
    made = make_recipe(f"{name}:careful")
    training = smoke().training.model_copy(update={"learning_rate": 0.0005})
    changed = {"recipe": "careful", "training": training, "source": f"{name}:careful"}
    assert made == smoke().model_copy(update=changed)
    assert made.recipe_digest != smoke().recipe_digest


def test_no_class_of_the_module_is_left_in_the_value(write: Write) -> None:
    name = write(
        "from pipelines.recipes import smoke\n"
        "from pipelines.contracts.config import RunConfig, TrainingConfig\n"
        "class Mine(RunConfig):\n    pass\n"
        "class MyTraining(TrainingConfig):\n    pass\n"
        "def careful():\n"
        "    fields = dict(smoke())\n"
        "    fields['training'] = MyTraining(**dict(smoke().training))\n"
        "    return Mine(**fields)\n"
    )
    made = make_recipe(f"{name}:careful")
    assert type(made) is RunConfig
    assert type(made.training) is type(smoke().training)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def other(): ...", "has no 'careful'; expected one of its functions, other"),
        ("careful = 3", r"is 3 \(int\); expected a function"),
        ("def careful(): return 3", r"returned 3 \(int\); expected a RunConfig"),
        ("def careful(a, b=1, *, c): ...", "needs arguments: a, c; expected a function that is"),
        ("def careful(): raise KeyError('x')", " raised KeyError: 'x'"),
        ("def careful(): raise SystemExit(3)", " raised SystemExit: 3"),
        ("careful = dict", r"does not say which arguments it takes \(no signature .*in Python"),
        ("1 / 0", r"importing \w+ raised ZeroDivisionError: division by zero"),
        ("import no_such_package_at_all", "raised ModuleNotFoundError: .*install what it needs"),
        ("def careful(:", "raised SyntaxError"),
    ],
)
def test_what_is_wrong_is_named(write: Write, text: str, told: str) -> None:
    name = write(text)
    with pytest.raises(ConfigurationError, match=rf"recipe {name}:careful.*{told}"):
        make_recipe(f"{name}:careful")


def test_a_module_that_is_not_here_is_told_how_to_be(write: Write) -> None:
    for reference in ("no_such_module:careful", "no_such.module:careful"):
        with pytest.raises(ConfigurationError) as caught:
            make_recipe(reference)
        told = str(caught.value)
        assert "No module named 'no_such" in told
        assert "in Airflow that is the worker" in told
        assert "Install the package that holds the module into that environment or image" in told


def test_what_was_put_past_the_validators_is_refused(write: Write) -> None:
    name = write(
        "from pipelines.recipes import smoke\n"
        "def careful():\n"
        "    fast = smoke().training.model_copy(update={'learning_rate': -1.0, 'seed': 'x'})\n"
        "    return smoke().model_copy(update={'training': fast})\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        make_recipe(f"{name}:careful")
    assert "- training.learning_rate is -1.0: input should be greater than 0" in str(caught.value)
    assert '- training.seed is "x": input should be a valid integer' in str(caught.value)


def test_an_error_that_may_pass_stays_one_that_may_pass(write: Write) -> None:
    name = write(
        "from pipelines.contracts.errors import TransientStorageError\n"
        "def careful(): raise TransientStorageError('the store is away')\n"
    )
    with pytest.raises(TransientStorageError, match="the store is away"):
        make_recipe(f"{name}:careful")
