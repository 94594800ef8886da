"""What Kubernetes says of names: of labels and subdomains of DNS, of the keys of labels. How long a text is."""

import re

__all__ = ["dns_label", "dns_subdomain", "label_key", "port_name", "size"]

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
NAME_PART = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
CONSISTS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME_PART}')"
)
PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", re.ASCII)


def dns_label(name: str) -> list[str]:
    """What is wrong with a name that is to be one label."""
    return checked(
        name,
        63,
        LABEL,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
        f"end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')",
    )


def dns_subdomain(name: str) -> list[str]:
    """What is wrong with a name that is to be labels with dots between them."""
    return checked(
        name,
        253,
        SUBDOMAIN,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
        "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        f"'{SUBDOMAIN}')",
    )


def label_key(key: str) -> list[str]:
    """What is wrong with the key of a label: a name, perhaps with a prefix."""
    *prefix, name = key.split("/")
    if len(prefix) > 1:
        return [
            f"a qualified name {CONSISTS} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    wrong = []
    if prefix:
        faults = dns_subdomain(prefix[0]) if prefix[0] else ["must be non-empty"]
        wrong += [f"prefix part {fault}" for fault in faults]
    if not name:
        wrong.append("name part must be non-empty")
    return wrong + [f"name part {fault}" for fault in checked(name, 63, NAME_PART, CONSISTS)]


def port_name(name: str) -> bool:
    return PORT_NAME.fullmatch(name) is not None


def size(text: str) -> int:
    """Bytes; half a surrogate pair, which JSON may have, counts as the three of Go's replacement for it."""
    return len(text.encode(errors="surrogatepass"))


def checked(name: str, longest: int, shape: str, otherwise: str) -> list[str]:
    wrong = []
    if size(name) > longest:
        wrong.append(f"must be no more than {longest} characters")
    if not re.fullmatch(shape, name, re.ASCII):
        wrong.append(otherwise)
    return wrong
