"""Options as metadata of the fields of ``RelaySettings`` and ``AgentSettings``.

The field carries the only description of its option. ``seance.options`` generates the flags, the environment
variables, ``--help``, ``docs/options.md`` and the config templates in ``deploy/`` from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

__all__ = ["OptionInfo", "ValueType", "describe", "document_options", "option", "option_info"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ValueType:
    """The type of an option's value.

    Attributes:
        parser: Name of the function in ``seance.options.parsers`` that parses the text.
        placeholder: Stands for the value in help; empty for a flag, which takes no value.
    """

    parser: str
    placeholder: str = ""


FLAG = ValueType("boolean")
FILE = ValueType("file_path", "FILE")
FILE_OR_URL = ValueType("file_path", "FILE|URL")
SIZE = ValueType("byte_count", "SIZE")
RATE = ValueType("rate", "SIZE")
SECONDS = ValueType("seconds", "SECONDS")
SECONDS_OR_ZERO = ValueType("seconds_or_zero", "SECONDS")
COUNT = ValueType("count", "COUNT")
LISTEN_ENDPOINT = ValueType("listen_endpoint", "ENDPOINT")
ADMIN_ENDPOINT = ValueType("admin_endpoint", "ENDPOINT")
LOCAL_SERVER = ValueType("local_server", "ADDRESS")
RELAY_URL = ValueType("relay_url", "URL")
ROOM = ValueType("room_name", "NAME")
TOKEN = ValueType("token", "TOKEN")
ORIGIN = ValueType("web_origin", "ORIGIN")
ANY_ORIGIN = ValueType("any_origin", "ORIGIN")
NETWORK = ValueType("network", "CIDR")
LOG_FORMAT = ValueType("log_format", "FORMAT")


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """The description of one option.

    Attributes:
        value_type: Type of the value.
        help: Effect of the option, as a phrase without a full stop.
        note: Full sentences for the reference: exceptions, and the reason for the default.
        group: Title of the group that starts with this option; empty for an option in the group above.
        is_common: Whether ``--help`` lists the option; ``--help-all`` lists every option.
        aliases: Further environment variables that set the option.
    """

    value_type: ValueType
    help: str
    note: str = ""
    group: str = ""
    is_common: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Help and note as sentences."""
        return f"{self.help[0].upper()}{self.help[1:]}. {self.note}".rstrip()


def describe(value_type: ValueType, help: str, **more: Any) -> Mapping[str, OptionInfo]:  # noqa: ANN401
    """Return the metadata of a field; the arguments are those of ``OptionInfo``."""
    return {"option": OptionInfo(value_type, help, **more)}


def option(default: T, value_type: ValueType, help: str, **more: Any) -> T:  # noqa: ANN401  # of OptionInfo
    """Declare a field with this default. If the default is a tuple, the option can be given several times."""
    return field(default=default, metadata=describe(value_type, help, **more))


def option_info(of: Field[Any]) -> OptionInfo | None:
    """Return the description that a field carries, or None if the field is not an option."""
    info: OptionInfo | None = of.metadata.get("option")
    return info


def document_options(settings: type[T]) -> type[T]:
    """Append the options to the "Attributes" of a dataclass's docstring, for ``help()`` and Sphinx."""
    doc = (settings.__doc__ or "").rstrip()
    lines = [doc] if "Attributes:" in doc else [doc, "", "    Attributes:"]
    for one in fields(settings):  # type: ignore[arg-type]  # it is a dataclass
        info = option_info(one)
        if info is not None:
            lines.append(f"        {one.name}: {info.text}")
    settings.__doc__ = "\n".join([*lines, "    "])
    return settings
