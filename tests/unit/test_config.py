"""Parameters: what is declared, given and taken from the profile; every mistake is one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from unlearnkit.errors import UnlearnkitError
from unlearnkit.runs.config import configure, declared, resolve

TYPES = {"seed": "int", "profile": "str", "steps": "Optional[int]", "rate": "float", "debug": "bool"}
VALUES: dict[str, Any] = {"seed": 0, "profile": "quick", "steps": None, "rate": 0.1, "debug": False}


def resolved(folder: Path, **values: Any) -> Any:
    return resolve(TYPES, {**VALUES, **values}, "01_tiny", folder)


def test_none_is_filled_from_the_profile_and_a_given_value_wins(series: Path) -> None:
    assert resolved(series).steps == 5
    assert resolved(series, profile="smoke").steps == 1
    assert resolved(series, steps=7).steps == 7
    assert dict(resolved(series).needs) == {"seconds": 1, "memory_gb": 0.1}


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("seed", "abc", "str"),
        ("seed", True, "bool"),
        ("seed", 1.0, "float"),
        ("seed", None, "NoneType"),
        ("steps", "5", "str"),
        ("rate", True, "bool"),
        ("rate", float("nan"), "float"),
        ("debug", 1, "int"),
        ("profile", 3, "int"),
    ],
)
def test_wrong_type_names_parameter_value_and_type(series: Path, name: str, value: Any, kind: str) -> None:
    with pytest.raises(UnlearnkitError, match="expected") as caught:
        resolved(series, **{name: value})
    message = str(caught.value)
    assert f"'{name}'" in message and repr(value) in message and kind in message and TYPES[name] in message


def test_an_integer_is_a_float(series: Path) -> None:
    rate = resolved(series, rate=1).rate
    assert rate == 1.0 and isinstance(rate, float)


def test_unknown_parameter_profile_and_profile_key(series: Path) -> None:
    with pytest.raises(UnlearnkitError, match="parameter 'sed' is unknown.*Did you mean 'seed'"):
        resolved(series, sed=1)
    with pytest.raises(UnlearnkitError, match="profile 'quik' is unknown; known: quick, smoke"):
        resolved(series, profile="quik")
    with pytest.raises(UnlearnkitError, match="profile '../quick' is unknown"):
        resolved(series, profile="../quick")
    (series / "profiles" / "quick.yml").write_text("01_tiny: {stepps: 3}")
    with pytest.raises(UnlearnkitError, match="profile 'quick'.*'stepps' is unknown"):
        resolved(series)
    (series / "profiles" / "quick.yml").write_text("01_tiny: {steps: many}")
    with pytest.raises(UnlearnkitError, match="'steps'.*'many'.*Optional"):
        resolved(series)


def test_a_profile_sets_only_what_the_notebook_leaves_open(series: Path) -> None:
    (series / "profiles" / "quick.yml").write_text("01_tiny: {seed: 3}")
    with pytest.raises(UnlearnkitError, match=r"Optional\[int\] = None"):
        resolved(series)


def test_yaml_is_data_only(series: Path) -> None:
    (series / "profiles" / "quick.yml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(UnlearnkitError, match="YAML"):
        resolved(series)


def test_a_config_is_immutable_and_shown_escaped(series: Path) -> None:
    types = {**TYPES, "world": "str"}
    config = resolve(types, {**VALUES, "world": "<script>x</script>"}, "01_tiny", series)
    with pytest.raises((AttributeError, TypeError)):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.values["seed"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError, match="Did you mean 'steps'"):
        _ = config.step
    shown = config._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "steps" in shown
    assert "steps = 5" in str(config)


def test_configure_reads_annotations_and_ignores_those_of_other_cells(series: Path) -> None:
    namespace: dict[str, Any] = {
        "__annotations__": {"seed": int, "profile": str, "steps": Optional[int], "later": list},  # noqa: UP045
        "In": ["", "seed: int = 0\nprofile: str = 'quick'\nsteps: Optional[int] = None", "later: list = []"],
        **{"seed": 4, "profile": "smoke", "steps": None, "later": []},
    }
    assert dict(configure(namespace, "01_tiny").values) == {"seed": 4, "profile": "smoke", "steps": 1}


def test_configure_refuses_what_papermill_injected_without_a_declaration(series: Path) -> None:
    namespace: dict[str, Any] = {
        "__annotations__": {"seed": int, "profile": str},
        "In": ["", "%matplotlib inline", "# Parameters\nseed = 1\nsede = 2\n"],
        **{"seed": 1, "sede": 2, "profile": "quick"},
    }
    (series / "profiles" / "quick.yml").write_text("")
    with pytest.raises(UnlearnkitError, match="'sede' is unknown.*Did you mean 'seed'"):
        configure(namespace, "01_tiny")


@pytest.mark.parametrize("line", ["seed = 0", "seed: int = max(1, 2)", "seed: int", "print(1)"])
def test_a_parameters_cell_holds_annotated_scalars_only(line: str) -> None:
    with pytest.raises(UnlearnkitError):
        declared(line)
    assert declared("from typing import Optional\nn: Optional[int] = -3  # help") == {"n": ("Optional[int]", -3)}
