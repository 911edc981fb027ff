"""A code package: a checked wheel with one entry point, and what it declares."""

from __future__ import annotations

import configparser
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidName, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

from models.code.interface import GROUPS, Interface, Stage
from models.code.wheel import Wheel, open_wheel
from models.errors import CodePackageError
from models.problems import problems

#: The file that declares a package's interface, beside its entry point's module.
DECLARATION: Final = "scorewire.toml"
_OBJECT: Final = re.compile(r"^\s*(?P<module>[A-Za-z_][\w.]*)\s*:\s*(?P<object>[A-Za-z_][\w.]*)\s*$")
#: What a worker has loaded before the package, or others rely on: a package may not stand in for it.
_TAKEN: Final = frozenset({*sys.stdlib_module_names, "msgpack", "numpy", "__pycache__"})


@dataclass(frozen=True)
class CodePackage:
    """What is known of a code package without running it.

    Attributes:
        wheel: the checked file.
        name: as its metadata has it.
        version: the same.
        module: where its entry point is.
        object: the entry point: a function, or a class of which one instance is made and called.
        interface: what it declares.
        requires: the libraries that it needs, with their versions.
        requires_python: the versions of Python that it runs on.
    """

    wheel: Wheel
    name: str
    version: str
    module: str
    object: str
    interface: Interface
    requires: tuple[Requirement, ...]
    requires_python: SpecifierSet

    @property
    def stage(self) -> Stage:
        """The stage that it can stand for."""
        return self.interface.stage

    def describe(self) -> dict[str, Any]:
        """Return what it says of itself, ready for JSON; golden values are counted and not told."""
        declared = self.interface.model_dump(mode="json", exclude={"golden"}, exclude_defaults=True)
        return {
            "stage": self.stage,
            "package": self.name,
            "version": self.version,
            "entry_point": f"{self.module}:{self.object}",
            "requires": [str(one) for one in self.requires],
            "requires_python": str(self.requires_python),
            "golden": len(self.interface.golden),
            **{("feature_names" if name == "features" else name): value for name, value in declared.items()},
        }


def open_package(path: Path | str) -> CodePackage:
    """Check a code package, without running it.

    Raises:
        CodePackageError: names the rule that it breaks; as models.code.wheel.open_wheel, and `filename`,
            `tags`, `metadata`, `requires`, `entry_point`, `shadows`, `declaration`.
    """
    wheel = open_wheel(Path(path))
    _check_tags(_message(wheel, "WHEEL"))
    metadata = _message(wheel, "METADATA")
    name, version = _identity(wheel, metadata)
    group, module, object_ = _entry_point(wheel)
    _check_modules(wheel, module)
    requires, requires_python = _requirements(metadata)
    interface = _declaration(wheel, module, GROUPS[group])
    return CodePackage(wheel, name, version, module, object_, interface, requires, requires_python)


def _message(wheel: Wheel, name: str) -> Message:
    return BytesParser().parsebytes(wheel.read(f"{wheel.dist_info}/{name}"))


def _check_tags(wheel_file: Message) -> None:
    version = str(wheel_file.get("Wheel-Version", "")).strip()
    if version.split(".")[0] != "1":
        raise CodePackageError("tags", f"Wheel-Version is {version!r}, known is 1.0")
    pure = str(wheel_file.get("Root-Is-Purelib", "")).strip().lower()
    tags = [str(tag).strip() for tag in wheel_file.get_all("Tag", [])]
    if pure != "true" or not tags:
        raise CodePackageError("tags", "it is no pure-Python wheel: Root-Is-Purelib must be true, with a Tag")
    fitting = {f"py3{minor}-none-any" for minor in ("", *range(sys.version_info.minor + 1))}
    if not fitting & set(tags):
        raise CodePackageError("tags", f"its tags are {', '.join(tags)}; a code package is py3-none-any")


def _identity(wheel: Wheel, metadata: Message) -> tuple[str, str]:
    name, version = (str(metadata.get(key, "")).strip() for key in ("Name", "Version"))
    folder_name, _, folder_version = wheel.dist_info.removesuffix(".dist-info").partition("-")
    try:
        told = (canonicalize_name(name, validate=True), Version(version))
        fits = told == (canonicalize_name(folder_name), Version(folder_version))
    except (InvalidName, InvalidVersion) as error:
        raise CodePackageError("metadata", f"METADATA names no package and version: {error}") from error
    if not fits:
        raise CodePackageError("metadata", f"METADATA says {name} {version}, the folder is {wheel.dist_info}")
    if wheel.path.suffix == ".whl":
        try:
            file_name, file_version, _, _ = parse_wheel_filename(wheel.path.name)
        except InvalidWheelFilename as error:
            raise CodePackageError("filename", str(error)) from error
        if (file_name, file_version) != told:
            raise CodePackageError("filename", f"{wheel.path.name} holds {name} {version}")
    return name, version


def _entry_point(wheel: Wheel) -> tuple[str, str, str]:
    """Return the group, the module and the object of the one entry point."""
    parser = configparser.RawConfigParser(delimiters=("=",), strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    file = f"{wheel.dist_info}/entry_points.txt"
    if file not in wheel.sizes:
        raise CodePackageError("entry_point", f"it has no entry point in {' or '.join(GROUPS)}")
    try:
        parser.read_string(wheel.read(file).decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise CodePackageError("entry_point", f"entry_points.txt cannot be read: {error}") from error
    found = [
        (group, value) for group in GROUPS if parser.has_section(group) for _, value in parser.items(group)
    ]
    if len(found) != 1:
        shown = ", ".join(f"{group}: {value}" for group, value in found) or "none"
        raise CodePackageError("entry_point", f"it must have one in {' or '.join(GROUPS)}; it has {shown}")
    group, value = found[0]
    match = _OBJECT.match(value)
    if match is None:
        raise CodePackageError("entry_point", f"{value!r} is not module:object")
    return group, match["module"], match["object"]


def _check_modules(wheel: Wheel, module: str) -> None:
    path = module.replace(".", "/")
    if not {f"{path}.py", f"{path}/__init__.py"} & set(wheel.sizes):
        raise CodePackageError("entry_point", f"it has no module {module}")
    tops = {
        name.split("/")[0].removesuffix(".py") for name in wheel.sizes if not name.startswith(wheel.dist_info)
    }
    taken = sorted(tops & _TAKEN)
    if taken:
        raise CodePackageError(
            "shadows", f"its {taken[0]!r} would stand in for a module of that name: rename it"
        )


def _requirements(metadata: Message) -> tuple[tuple[Requirement, ...], SpecifierSet]:
    try:
        requires = tuple(Requirement(str(text)) for text in metadata.get_all("Requires-Dist", []))
        python = SpecifierSet(str(metadata.get("Requires-Python", "")))
    except (InvalidRequirement, InvalidSpecifier) as error:
        raise CodePackageError("requires", f"METADATA asks for what nobody can read: {error}") from error
    for one in requires:
        if one.url:
            raise CodePackageError("requires", f"{one} is an address: nodes install no libraries")
    return requires, python


def _declaration(wheel: Wheel, module: str, kind: type[Interface]) -> Interface:
    file = f"{module.partition('.')[0]}/{DECLARATION}"
    if file not in wheel.sizes:
        raise CodePackageError("declaration", f"it has no {file}, which says what the package makes")
    try:
        document: Mapping[str, object] = tomllib.loads(wheel.read(file).decode("utf-8"))
        return kind.model_validate(document)
    except ValidationError as error:
        raise CodePackageError("declaration", f"{file}: {problems(error, kind.stage)}") from error
    except ValueError as error:
        raise CodePackageError("declaration", f"{file}: {error}") from error
