"""What the text of a step is made of: words, and things in quotation marks."""

from pytest_bdd import parsers

__all__ = ["Manifest", "phrase"]


class Manifest(str):
    """The name of a file in the features' folder `manifests`."""

    __slots__ = ()


def quoted_name(text: str) -> str:
    return text


def quoted_manifest(text: str) -> Manifest:
    return Manifest(text)


for quoted in (quoted_name, quoted_manifest):
    quoted.pattern = r'[^"]+'  # type: ignore[attr-defined]  # where `parse` looks for it


def phrase(text: str) -> parsers.parse:
    """A step's text. A {…:Name} ends at its quotation mark: else one step's text would match another's, too."""
    return parsers.parse(text, extra_types={"Name": quoted_name, "Manifest": quoted_manifest})
