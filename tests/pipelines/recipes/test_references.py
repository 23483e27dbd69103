"""What names a recipe: names of ours, functions and files of others, and what is wrong there."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.config import Limit, RunConfig
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.recipes import RECIPES, canonical, completejourney, key_of, make_recipe, smoke
from pipelines.recipes.text import differences
from pipelines.storage import to_uri


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_of_this_project_has_no_other_source(name: str) -> None:
    made = make_recipe(name)
    assert (made, made.source, made.reference) == (RECIPES[name](), "", name)


def test_a_file_is_known_by_its_absolute_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("extends: smoke\n")
    monkeypatch.chdir(tmp_path)
    uri = to_uri(tmp_path / "mine.yaml")
    assert canonical("mine.yaml") == canonical(uri) == uri
    made = make_recipe("mine.yaml")
    assert made == make_recipe(uri)
    assert (made.recipe, made.source, made.reference) == ("mine", uri, uri)


@pytest.mark.parametrize("end", ["/mine.yaml", "/mine", "", "/mine.yaml?x=1"])
@pytest.mark.parametrize("is_extended", [False, True])
def test_a_uri_with_keys_is_refused_and_not_repeated(
    tmp_path: Path, end: str, is_extended: bool
) -> None:
    reference = f"s3://AKIA123:secret@bucket{end}"
    (tmp_path / "a.yaml").write_text(f"extends: {reference}\n")
    with pytest.raises(ConfigurationError, match="has keys or a user name in it") as caught:
        make_recipe(str(tmp_path / "a.yaml") if is_extended else reference)
    assert "secret" not in str(caught.value) and "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("smok", "unknown recipe 'smok'; did you mean 'smoke'"),
        ("mine.recipes", "expected one of completejourney, production, smoke, world, or package"),
        ("", "unknown recipe ''"),
        ("s3://[b/x.yaml", "recipe 's3://[b/x.yaml' is no path and no URI of a file; expected"),
        ("~nobody_x/x.yaml", "is no path and no URI of a file"),
        ("a\0.yaml", "is no path and no URI of a file"),
        ("file:///%00.yaml", "is no path and no URI of a file"),
        ("mine.json", "a path or URI that ends with .yaml, .yml"),
    ],
)
def test_what_is_no_reference_is_told_what_is(reference: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        make_recipe(reference)


def test_a_key_is_safe_in_a_path_and_tells_outside_recipes_apart() -> None:
    assert key_of("completejourney") == "completejourney"
    outside = (
        "ours.ranking:careful",
        "theirs.ranking:careful",
        "file:///a/careful.yaml",
        "file:///b/careful.yaml",
        "s3://bucket/careful.yaml",
        "s3://bucket/k%20%2F:.yaml",
    )
    keys = [key_of(reference) for reference in outside]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"\w+-[0-9a-f]{8}", key) for key in keys)
    assert [key.partition("-")[0] for key in keys[:5]] == ["careful"] * 5


EXAMPLE = Path(__file__).parents[3] / "docs" / "example_recipe.yaml"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_the_example_of_the_documentation_is_a_recipe() -> None:
    made = make_recipe(str(EXAMPLE))
    assert (made.recipe, made.source) == ("careful", storage.to_uri(EXAMPLE))
    assert made.model.mlp_dims == (128, 64)
    assert made.model_gate.floors[0] == Limit(
        metric="calibration_ratio.repin", minimum=0.9, maximum=1.1
    )
    changed = [line.partition(":")[0] for line in differences(completejourney(), made)]
    assert changed == [
        "model.max_actions",
        "model.mlp_dims",
        "training.num_epochs",
        "training.learning_rate",
        "model_gate.margin",
        "model_gate.floors[0].minimum",
        "model_gate.floors[0].maximum",
    ]


def test_a_chain_of_files_is_relative_to_each(tmp_path: Path) -> None:
    base = "extends: smoke\ntraining: {seed: 5, batch_size: 64}\n"
    write(tmp_path / "team/base %41.yaml", base)
    above = "extends: ../team/base %41.yaml\ntraining: {seed: 6}\n"
    path = write(tmp_path / "mine/the last.yml", above)
    made = make_recipe(path)
    assert (made.training.seed, made.training.batch_size) == (6, 64)
    assert (made.recipe, made.source) == ("the last", storage.to_uri(path))


def test_a_file_that_extends_itself_by_another_way_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "here" / "a b.yaml", "extends: ../there/c.yaml\n")
    write(tmp_path / "there" / "c.yaml", "extends: ../here/a b.yaml\n")
    with pytest.raises(ConfigurationError, match="a%20b.yaml extends itself: .*there/c.yaml -> "):
        make_recipe(path)


def test_a_file_in_a_bucket_is_read_and_extends_its_neighbour(s3_uri: str) -> None:
    storage.write_bytes(f"{s3_uri}/base.yaml", b"extends: smoke\ntraining: {seed: 5}\n")
    mine = f"{s3_uri}/team/mine.yaml"
    storage.write_bytes(mine, b"extends: ../base.yaml\n")
    made = make_recipe(mine)
    assert (made.training.seed, made.source) == (5, mine)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", None, r"a.yaml: there is no such file"),
        ("a.yaml", b"recipe: \xff\xfe", "cannot be read as YAML: "),
        ("a.yaml", "extends: smoke\ntraining:\n  seed: [1\n", "cannot be read as YAML: .* line 4"),
        ("a.yaml", 'extends: smoke\nrecipe: "\\ud800"\n', "it is .*: invalid JSON: "),
        ("a.yaml", "", "holds None, .*; expected fields such as"),
        ("a.yaml", "- smoke\n", r"holds \['smoke'\], .*; expected fields"),
        ("a.yaml", "extends: [smoke]\n", r"extends is \['smoke'\]; expected fields"),
        ("a.yaml", "extends: smok\n", "unknown recipe 'smok'; did you mean 'smoke'"),
        ("a.yaml", "extends: gone.yaml\n", "gone.yaml: there is no such file"),
        ("a.yaml", "extends: a.yaml\n", "extends itself: .*a.yaml -> .*a.yaml"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, name: str, text: str | bytes | None, told: str
) -> None:
    path = str(tmp_path / name)
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=f"(?s){told}") as caught:
        make_recipe(path)
    assert str(tmp_path) in str(caught.value) or "smok" in told


def test_a_file_extends_no_function_and_reading_it_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "module_that_tells.py", "from pathlib import Path\nPath('told').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path / "a.yaml", "extends: module_that_tells:careful\n")
    with pytest.raises(ConfigurationError, match="'.*:careful'; .*/a.yaml extends no function"):
        make_recipe(path)
    numeric = "features: {numeric: [{name: 'module_that_tells:careful'}]}\n"
    made = make_recipe(write(tmp_path / "b.yaml", f"extends: smoke\n{numeric}"))
    assert made.features.numeric[0].is_own
    assert not (tmp_path / "told").exists()


NUMBERS = itertools.count()
Write = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module of that text and return its name, which no other test has."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(text: str) -> str:
        name = f"somebodys_recipes_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return made


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("careful = 3", r"'careful' of the module \w+ is 3; expected one of its functions"),
        ("def other(): ...", "is None; expected"),
        ("def careful(): return 3", r"returned 3 \(int\); expected a function .* a RunConfig"),
        (
            "def careful(a, b=1, *, c): ...",
            "1 required positional argument: 'a'; expected",
        ),
        ("def careful(): raise KeyError('x')", " raised KeyError: 'x'"),
        ("def careful(): raise SystemExit(3)", " raised SystemExit: 3"),
        ("1 / 0", r"\w+ cannot be imported in this process \(ZeroDivisionError: div"),
        (
            "import no_such_thing",
            "ModuleNotFoundError: No m.*in Airflow that is the worker.*install",
        ),
    ],
)
def test_what_is_wrong_is_named(module: Write, text: str, told: str) -> None:
    name = module(text)
    with pytest.raises(ConfigurationError, match=rf"recipe {name}:careful.*{told}"):
        make_recipe(f"{name}:careful")


def test_a_function_s_value_is_the_recipe_and_what_was_put_past_the_validators_is_refused(
    module: Write,
) -> None:
    name = module(
        "from pipelines.recipes import smoke\n"
        "from pipelines.contracts.config import RunConfig\n"
        "class Mine(RunConfig):\n    pass\n"
        "def careful(**values):\n"
        "    training = smoke().training.model_copy(update={'learning_rate': 0.0005, **values})\n"
        "    fields = {'recipe': 'careful', 'training': training}\n"
        "    return Mine(**dict(smoke())).model_copy(update=fields)\n"
        "def wild(): return careful(learning_rate=-1.0, seed='x')\n"
    )
    made = make_recipe(f"{name}:careful")
    training = smoke().training.model_copy(update={"learning_rate": 0.0005})
    changed = {"recipe": "careful", "training": training, "source": f"{name}:careful"}
    assert made == smoke().model_copy(update=changed) and type(made) is RunConfig
    assert made.recipe_digest != smoke().recipe_digest
    with pytest.raises(ConfigurationError) as caught:
        make_recipe(f"{name}:wild")
    assert "- training.learning_rate is -1.0: input should be greater than 0" in str(caught.value)
    assert '- training.seed is "x": input should be a valid integer' in str(caught.value)


def test_an_error_that_may_pass_stays_one_that_may_pass(module: Write) -> None:
    name = module(
        "from pipelines.contracts.errors import TransientStorageError\n"
        "def careful(): raise TransientStorageError('the store is away')\n"
    )
    with pytest.raises(TransientStorageError, match="the store is away"):
        make_recipe(f"{name}:careful")
