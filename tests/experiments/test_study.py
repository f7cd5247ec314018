"""Studies: what is accepted, and the sentence that refuses the rest."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from experiments import study as study_module
from experiments.study import (
    Study,
    StudyError,
    list_studies,
    load_study,
    study_from_document,
)


@pytest.fixture
def toml(tmp_path, helpers):
    def write(**changes):
        path = tmp_path / "mine.toml"
        path.write_text(helpers.toml_text(helpers.toy_document(**changes)))
        return path

    return write


def test_toml_to_study_and_back(toml, study, helpers):
    loaded = load_study(toml())
    assert loaded == study
    assert loaded == load_study(str(toml()))
    assert study_from_document(loaded.document()) == loaded
    assert pickle.loads(pickle.dumps(loaded)).config_hash == loaded.config_hash
    with pytest.raises(ValidationError, match="frozen"):
        loaded.seed = 3


def test_hash_is_of_what_determines_a_result(study, helpers, monkeypatch):
    same = helpers.toy_study(title="Other", reference="Other", profiles={"paper": {
        "minutes": 1, "sizes": [1], "replicates": 1}})  # fmt: skip
    assert same.config_hash == study.config_hash
    assert helpers.toy_study(setting={"scale": 1.3, "delay": 0}).config_hash == study.config_hash
    others = [
        helpers.toy_study(seed=12),
        helpers.toy_study(name="other"),
        helpers.toy_study(setting={"scale": 1.4}),
        study.model_copy(update={"seed": 13}),
    ]
    monkeypatch.setattr("toy_kinds.Toy.revision", 2)
    others.append(helpers.toy_study())
    assert len({other.config_hash for other in [study, *others]}) == len(others) + 1


def test_arms_share_data_and_purposes_do_not(study):
    assert study.seed_of(10, 3, "data") == study.seed_of(10, 3, "data")
    keys = [(10, 3), (10, 4), (11, 3), (10, 3, "data"), (10, 3, "init"), (10, 3, "init", "mle")]
    assert len({study.seed_of(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("setting.scal", 2.0, "key 'setting.scal': unknown key, did you mean 'scale'?; got 2.0"),
        (
            "profiles.quick.size",
            [3],
            "key 'profiles.quick.size': unknown key, did you mean 'sizes'",
        ),
        ("setting.trouble", [{"n": 3, "hov": "raise"}], "did you mean 'how'?; got 'raise'"),
        ("titel", "x", "key 'titel': unknown key, did you mean 'title'?"),
        ("zzz", 1, "key 'zzz': unknown key; got 1"),
        ("seed", -1, "key 'seed': Input should be greater than or equal to 0; got -1"),
        ("seed", 1.5, "key 'seed': Input should be a valid integer"),
        ("seed", True, "key 'seed': Input should be a valid integer; got True"),
        ("title", "", "key 'title': String should have at least 1 character"),
        ("verifies", "a\nb", "key 'verifies': String should match"),
        ("name", "../x", "key 'name': A name must have lower-case letters"),
        ("name", None, "key 'name': this key is required"),
        ("kind", "toi", "key 'kind': unknown kind 'toi'; did you mean 'toy'? known kinds: "),
        ("kind", "os.path", "key 'kind': unknown kind 'os.path'"),
        ("kind", 3, "key 'kind': must name a kind; got 3"),
        ("kind", None, "key 'kind': must name a kind; got None"),
        ("setting", None, "key 'setting': this key is required"),
        ("setting.scale", float("inf"), "key 'setting.scale': Input should be a finite number"),
        ("profiles", {}, "key 'profiles': Dictionary should have at least 1 item"),
        ("profiles.quik", {"minutes": 1}, "key 'profiles.quik': Input should be 'smoke', 'quick'"),
        ("profiles.quick.minutes", 0, "key 'profiles.quick.minutes': Input should be greater than"),
    ],
)
def test_one_sentence_names_file_key_rule_and_value(helpers, place, value, sentence):
    document = copy.deepcopy(helpers.toy_document())
    *path, last = place.split(".")
    table = document
    for key in path:
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value
    with pytest.raises(StudyError) as caught:
        study_from_document(document, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.dictionaries(
        st.text(max_size=8) | st.sampled_from(["name", "kind", "seed", "setting", "profiles"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
            max_leaves=8,
        ),
    ),
    st.booleans(),
)
def test_any_document_is_a_study_or_a_study_error(helpers, changes, known_kind):
    document = {**helpers.toy_document(), **changes, **({"kind": "toy"} if known_kind else {})}
    try:
        study = study_from_document(document)
    except StudyError:
        return
    assert isinstance(study, Study)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"name = ", "not valid TOML: Invalid value (at end of document)"),
        (b"name = 'a'\nname = 'b'\n", "not valid TOML: Cannot overwrite a value (at line 2"),
        (b"\xff\xfe", "not UTF-8 text (byte 0)"),
        (b"", "key 'kind': must name a kind; got None"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
    ],
)
def test_bad_toml(tmp_path, content, sentence):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "/dev/zero", "./nothing.toml", "a\0.toml", "studies/", "../x.toml"],
)
def test_hostile_paths(name):
    with pytest.raises(StudyError, match=r"is not a study: there is no \.toml file"):
        load_study(name)


def test_unknown_name_suggests(monkeypatch):
    monkeypatch.setattr(study_module, "_shipped", lambda: ["softmax-over", "topk-exact"])
    with pytest.raises(StudyError, match="did you mean 'topk-exact'") as caught:
        load_study("topk-exct")
    assert "shipped studies: softmax-over, topk-exact" in str(caught.value)


def test_a_shipped_study_has_the_name_of_its_file(tmp_path, toml, monkeypatch):
    folder = tmp_path / "studies"
    folder.mkdir()
    toml().rename(folder / "other.toml")
    monkeypatch.setattr(study_module, "files", lambda package: tmp_path)
    assert [header.name for header in list_studies()] == ["toy-study"]
    with pytest.raises(StudyError, match="key 'name': must be the file's name; got 'toy-study'"):
        load_study("other")


def test_shipped_studies_are_whole():
    for header in list_studies():
        study = load_study(header.name)
        assert set(study.profiles) == set(header.profiles)
        for profile in study.profiles:
            assert study.batches(profile)


def test_unknown_profile(study):
    with pytest.raises(StudyError, match="no profile 'paper'; it has: smoke, quick"):
        study.batches("paper")


def test_a_study_made_by_hand_needs_its_kinds_models(study):
    fields = {name: getattr(study, name) for name in Study.model_fields}
    assert Study(**fields) == study
    with pytest.raises(ValidationError, match="'setting' must be a ToySetting"):
        Study(**{**fields, "setting": {"scale": 1.0}})
    with pytest.raises(ValidationError, match="'profiles' must hold instances of ToyProfile"):
        Study(**{**fields, "profiles": {"smoke": {"sizes": [1]}}})
