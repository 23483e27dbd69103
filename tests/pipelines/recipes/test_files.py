"""Recipes in YAML and TOML files: complete, extended, and in every way that they may be broken."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.config import Limit
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import completejourney, make_recipe, smoke
from pipelines.recipes.showing import differences, to_yaml

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
        "model_gate.floors[calibration_ratio.repin].minimum",
        "model_gate.floors[calibration_ratio.repin].maximum",
    ]


def test_toml_says_the_same_as_yaml(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: smoke\ntraining:\n  learning_rate: 1e-3\n  seed: 5\n")
    write(tmp_path / "a.toml", 'extends = "smoke"\n[training]\nlearning_rate = 1e-3\nseed = 5\n')
    one, other = (make_recipe(str(tmp_path / name)) for name in ("a.yaml", "a.toml"))
    assert one.training.learning_rate == 0.001 and one.training.seed == 5
    assert one.model_copy(update={"source": other.source}) == other


def test_a_complete_file_needs_nothing_else(tmp_path: Path) -> None:
    made = make_recipe(write(tmp_path / "whole.yaml", to_yaml(smoke())))
    assert made.model_copy(update={"source": ""}) == smoke()


def test_a_chain_of_files_is_relative_to_each(tmp_path: Path) -> None:
    write(tmp_path / "team/base.toml", 'extends = "smoke"\n[training]\nseed = 5\nbatch_size = 64\n')
    path = write(tmp_path / "mine/last.yml", "extends: ../team/base.toml\ntraining: {seed: 6}\n")
    made = make_recipe(path)
    assert (made.training.seed, made.training.batch_size) == (6, 64)
    assert (made.recipe, made.source) == ("last", storage.to_uri(path))


def test_a_file_that_extends_itself_by_another_way_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "here" / "a b.yaml", "extends: ../here/a b.yaml\n")
    with pytest.raises(ConfigurationError, match="a%20b.yaml extends itself: "):
        make_recipe(path)


def test_a_file_in_a_bucket_is_read_and_extends_its_neighbour(s3_uri: str) -> None:
    storage.write_bytes(f"{s3_uri}/base.yaml", b"extends: smoke\ntraining: {seed: 5}\n")
    storage.write_bytes(f"{s3_uri}/mine.yaml", b"extends: base.yaml\n")
    made = make_recipe(f"{s3_uri}/mine.yaml")
    assert (made.training.seed, made.source) == (5, f"{s3_uri}/mine.yaml")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "extends: smoke\ntraining:\n  seed: [1\n", "cannot be read as YAML: .* line 4"),
        ("a.yaml", "training:\n\tseed: 1\n", "cannot be read as YAML: .* line 2, column 1"),
        ("a.yaml", "extends: smoke\nextends: world\n", "'extends' stands twice at line 2"),
        (
            "a.yaml",
            "x: !!python/object/apply:os.getcwd []\n",
            "has no tags, and this is !!python/object/apply",
        ),
        ("a.yaml", "extends: smoke\n? [a]\n: b\n", "found unhashable key at line 2"),
        ("a.yaml", "extends: smoke\ntraining: &a {seed: *a}\n", "is nested without an end"),
        (
            "a.yaml",
            'extends: smoke\nrecipe: "\\ud800"\n',
            "a text in it cannot be saved .*write it anew",
        ),
        ("a.yaml", 'extends: "a\\0b.yaml"\n', "is no path and no URI: it names no file"),
        ("a.toml", "seed = = 1\n", r"cannot be read as TOML: .*line 1"),
        ("a.yaml", "", "holds nothing; expected fields such as"),
        ("a.yaml", "- smoke\n", "holds list; expected fields"),
        ("a.yaml", "extends: [smoke]\n", r"extends is \['smoke'\]; expected the name"),
        ("a.yaml", "extends: smok\n", "unknown recipe 'smok'; did you mean 'smoke'"),
        ("a.yaml", "extends: gone.yaml\n", "gone.yaml: there is no such file"),
        ("a.yaml", "extends: a.yaml\n", "extends itself: .*a.yaml -> .*a.yaml"),
        ("a.yaml", "extends: smoke\ntrainin: {seed: 1}\n", r"trainin: .* did you mean training\?"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    path = write(tmp_path / name, text)
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
    with pytest.raises(
        ConfigurationError, match="extends is '.*:careful', a function; .* another f"
    ):
        make_recipe(path)
    numeric = "features: {numeric: [{name: 'module_that_tells:careful'}]}\n"
    made = make_recipe(write(tmp_path / "b.yaml", f"extends: smoke\n{numeric}"))
    assert made.features.numeric[0].is_own
    assert not (tmp_path / "told").exists()


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{tmp_path}/gone.yaml: there is no such file"):
        make_recipe(str(tmp_path / "gone.yaml"))
    (tmp_path / "a.yaml").write_bytes(b"recipe: \xff\xfe")
    with pytest.raises(ConfigurationError, match="is no text in UTF-8"):
        make_recipe(str(tmp_path / "a.yaml"))
