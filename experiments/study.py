"""Studies: a TOML file, read into a frozen `Study` or refused with one clear sentence."""

import difflib
import hashlib
import tomllib
from importlib.resources import files
from os import PathLike, sep
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.errors import PydanticUserError

from . import UserError
from .keys import canonical_json, checked_name, seed_of
from .kinds import Batch, KindError, ProfileModel, get_kind

ProfileName = Literal["smoke", "quick", "paper", "beyond"]

_Name = Annotated[str, AfterValidator(checked_name)]
_Line = Annotated[str, Field(min_length=1, pattern=r"^[^\r\n]+$")]


class StudyError(UserError, ValueError):
    """A study that cannot be used: names the file, the key, the rule and the value."""


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    name: _Name
    kind: str
    title: _Line
    verifies: _Line
    reference: _Line
    seed: int = Field(ge=0, lt=2**63)


class ProfileHeader(BaseModel):
    """What `moebius list` says of a profile."""

    model_config = ConfigDict(frozen=True)

    minutes: float


class StudyHeader(_Described):
    """A study's words without its numbers: read without importing its kind."""

    profiles: dict[ProfileName, ProfileHeader]


class _Strict(_Described):
    model_config = ConfigDict(extra="forbid")


class Study(_Strict):
    """A frozen, validated study.

    Parameters
    ----------
    name : str
        Names the study's folder in the store; by `experiments.keys.NAME_RULE`.
    kind : str
        A kind known to `experiments.kinds.get_kind`.
    title, verifies, reference : str
        One line each: a heading, the claim as a sentence, where the claim is made.
    seed : int
        Base seed, in [0, 2**63).
    setting : SettingModel
        An instance of the kind's `Setting`.
    profiles : dict of ProfileModel
        Instances of the kind's `Profile` under "smoke", "quick", "paper" or "beyond", at least one.

    See Also
    --------
    load_study : read one from TOML.
    study_from_document : make one from plain dicts.
    """

    setting: Any
    profiles: dict[ProfileName, Any] = Field(min_length=1)

    _revision: int = PrivateAttr()

    @model_validator(mode="after")
    def _belongs_to_its_kind(self) -> "Study":
        kind = get_kind(self.kind)
        if not isinstance(self.setting, kind.Setting):
            raise ValueError(f"'setting' must be a {kind.Setting.__name__}")
        if not all(isinstance(profile, kind.Profile) for profile in self.profiles.values()):
            raise ValueError(f"'profiles' must hold instances of {kind.Profile.__name__}")
        self._revision = kind.revision
        return self

    @property
    def config_hash(self) -> str:
        """Twelve hex digits over what determines a cell's result.

        SHA-256 over name (which enters the seeds), kind, the kind's revision, setting and base
        seed. Not over title, reference and profiles: profiles share their cells.
        """
        config = [
            self.name,
            self.kind,
            self._revision,
            self.setting.model_dump(mode="json"),
            self.seed,
        ]
        return hashlib.sha256(canonical_json(config).encode("ascii")).hexdigest()[:12]

    def seed_of(self, n: int, replicate: int, *purpose: str | int, bits: int = 128) -> int:
        """Return the seed for one purpose within one replicate.

        The key is ``(study name, base seed, n, replicate, *purpose)``. The arm is not part of it,
        so arms share their data; add it to `purpose` where an arm needs random numbers of its own.
        The setting is not part of it either: two settings under one name have common random
        numbers.
        """
        return seed_of(self.name, self.seed, n, replicate, *purpose, bits=bits)

    def profile(self, name: str) -> ProfileModel:
        """Return a profile by name.

        Raises
        ------
        StudyError
            If the study has no such profile.
        """
        for known, profile in self.profiles.items():
            if known == name:
                return profile
        raise StudyError(
            f"study {self.name!r} has no profile {name!r}; it has: {', '.join(self.profiles)}"
        )

    def batches(self, profile: str) -> tuple[Batch, ...]:
        """Return the batches of a profile.

        Raises
        ------
        StudyError
            If the study has no such profile.
        KindError
            If the kind cuts it into batches that share a key or a cell.
        """
        kind = get_kind(self.kind)
        batches = tuple(kind.batches(self.setting, self.profile(profile)))
        cells = [cell for batch in batches for cell in batch.cells]
        if len({batch.key for batch in batches}) < len(batches) or len(set(cells)) < len(cells):
            raise KindError(
                f"kind {self.kind!r} cuts profile {profile!r} of study {self.name!r} into batches "
                f"that share a key or a cell"
            )
        return batches

    def document(self) -> dict[str, Any]:
        """Return the study as JSON-able dicts, for `study_from_document` to read."""
        return self.model_dump(mode="json")


def load_study(path_or_name: str | PathLike[str]) -> Study:
    """Read a study: a shipped one by its name, any other by the path of its TOML file.

    A string with a path separator or the ending ".toml" is a path, any other string a name.

    Raises
    ------
    StudyError
        If there is no such study, or it breaks a rule.
    """
    source, text = _read(path_or_name)
    study = study_from_document(_parse(text, source), source)
    if path_or_name in _shipped() and study.name != path_or_name:
        raise StudyError(f"{source}: key 'name': must be the file's name; got {study.name!r}")
    return study


def list_studies() -> list[StudyHeader]:
    """Return the headers of the shipped studies, sorted by name."""
    headers = []
    for name in _shipped():
        source, text = _read(name)
        document = _parse(text, source)
        try:
            headers.append(StudyHeader.model_validate(document))
        except ValidationError as error:
            raise _study_error(error, StudyHeader, source) from None
    return headers


def study_from_document(document: dict[str, Any], source: str = "study") -> Study:
    """Validate plain dicts (a parsed TOML or JSON file) and return the study they describe.

    Parameters
    ----------
    document : dict
        The keys of `Study`, with dicts for setting and profiles.
    source : str
        What to call the document in an error message, such as its path.

    Raises
    ------
    StudyError
        Naming source, key, rule and value of every broken rule.
    """
    kind_name = document.get("kind")
    if not isinstance(kind_name, str):
        raise StudyError(f"{source}: key 'kind': must name a kind; got {kind_name!r}")
    try:
        kind = get_kind(kind_name)
    except KindError as error:
        raise StudyError(f"{source}: key 'kind': {error}") from None
    # The kind's own models in place of Any give errors with the full path of a key. What comes out
    # is a plain Study again, which pickles whatever the kind.
    fields: dict[str, Any] = {
        "setting": (kind.Setting, ...),
        "profiles": (dict[ProfileName, kind.Profile], Field(min_length=1)),  # type: ignore[name-defined]
    }
    form = create_model("StudyDocument", __base__=_Strict, **fields)
    try:
        checked = form.model_validate(document)
    except ValidationError as error:
        raise _study_error(error, form, source) from None
    return Study(**{name: getattr(checked, name) for name in form.model_fields})


def _shipped() -> list[str]:
    folder = files(__package__) / "studies"
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def _read(path_or_name: str | PathLike[str]) -> tuple[str, bytes]:
    """Return what to call the study in messages and the bytes of its file."""
    text = str(path_or_name)
    if isinstance(path_or_name, str) and sep not in text and not text.endswith(".toml"):
        known = _shipped()
        if text not in known:
            near = difflib.get_close_matches(text, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise StudyError(
                f"unknown study {text!r}; {hint}shipped studies: {', '.join(known) or 'none'}; "
                f"for a study of your own give the path of its .toml file"
            )
        return f"study {text!r}", (files(__package__) / "studies" / f"{text}.toml").read_bytes()
    path = Path(path_or_name)
    if path.suffix != ".toml" or not path.is_file():
        raise StudyError(f"{text!r} is not a study: there is no .toml file of that name")
    try:
        return text, path.read_bytes()
    except OSError as error:
        raise StudyError(f"{text}: cannot be read: {error.strerror}") from None


def _parse(text: bytes, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StudyError(f"{source}: not UTF-8 text (byte {error.start})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise StudyError(f"{source}: not valid TOML: {error}") from None


def _study_error(error: ValidationError, model: type[BaseModel], source: str) -> StudyError:
    items = error.errors(include_url=False)
    unknown_tables = {item["loc"][:-1] for item in items if item["loc"][-1:] == ("[key]",)}
    lines = []
    for item in items:
        loc = item["loc"]
        if loc[:2] in unknown_tables and loc[2:] != ("[key]",):
            continue  # what is wrong inside a table that should not be there
        key = ".".join(str(part) for part in loc if part != "[key]") or "(whole file)"
        rule = item["msg"].removeprefix("Value error, ")
        value = f"; got {_short(item['input'])}"
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(loc[-1]), _known_keys(model, loc[:-1]), n=1)
            rule = "unknown key" + (f", did you mean {near[0]!r}?" if near else "")
        elif item["type"] == "missing":
            rule, value = "this key is required", ""
        elif "; got " in rule:
            value = ""
        lines.append(f"key {key!r}: {rule}{value}")
    return StudyError(f"{source}: " + " | ".join(lines))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """Return the keys that a model allows in the table at `loc`, through its JSON schema."""
    try:
        schema = model.model_json_schema()
    except PydanticUserError:  # a kind's field type without a JSON schema: no suggestion then
        return set()

    def alternatives(node: dict[str, Any]) -> list[dict[str, Any]]:
        if "$ref" in node:
            return alternatives(schema["$defs"][node["$ref"].rsplit("/", 1)[1]])
        options = node.get("anyOf", []) + node.get("oneOf", [])
        return [found for option in options for found in alternatives(option)] or [node]

    level = alternatives(schema)
    for part in loc:
        below = []
        for node in level:
            inner = node.get("properties", {}).get(part) or node.get("additionalProperties")
            if isinstance(part, int):
                prefix = node.get("prefixItems", [])
                inner = prefix[part] if part < len(prefix) else node.get("items")
            if isinstance(inner, dict):
                below += alternatives(inner)
        level = below or level  # the tag of a union is a part of `loc` but no level of the schema
    return {key for node in level for key in node.get("properties", {})}
