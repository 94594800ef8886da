"""Networks and interfaces: each interface with the network of its name, bound to it in one way."""

import ipaddress
import re
from collections.abc import Iterator

from clusters.kubevirt.api.refusals import DUPLICATE, NOT_SUPPORTED, REQUIRED, Cause
from clusters.kubevirt.api.rules.disks import PCI_ADDRESS
from clusters.kubevirt.api.rules.names import port_name
from virtflow.kube import Object

__all__ = ["boot_order", "discontinued_bindings", "networks_and_interfaces"]

BINDINGS = ("bridge", "masquerade", "sriov", "passtBinding", "binding")
DISCONTINUED = {
    "slirp": "Slirp interface support has",
    "passt": "Passt network binding has",
    "macvtap": "Macvtap network binding has",
}
STATES = ("", "absent", "down", "up")
MODELS = ("", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio")
INTERFACE_NAME = re.compile(r"[A-Za-z0-9-_]+", re.ASCII)
MAC = re.compile(
    r"[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(\1[0-9a-fA-F]{2})*|([0-9a-fA-F]{4}\.)+[0-9a-fA-F]{4}|[0-9a-fA-F]+", re.ASCII
)
MAC_DIGITS = (12, 16, 40)
RESERVED_MAC = "02:00:00:00:00:00"
PRIVATE_OPTIONS = range(224, 255)


def discontinued_bindings(field: str, spec: Object) -> Iterator[Cause]:
    """Asked before everything else, and of what is created only."""
    for index, interface in enumerate(spec["domain"]["devices"].get("interfaces", ())):
        for name, words in DISCONTINUED.items():
            if name in interface:
                path = f"{field}.domain.devices.interfaces[{index}].{name}"
                yield Cause(f"{words} been discontinued since v1.3", path)


def networks_and_interfaces(field: str, spec: Object) -> Iterator[Cause]:
    networks, path = spec.get("networks", []), f"{field}.networks"
    interfaces, where = spec["domain"]["devices"].get("interfaces", []), f"{field}.domain.devices.interfaces"
    by_name = {network["name"]: network for network in networks}
    yield from one_default(field, networks)
    yield from sources(path, networks)
    for index, interface in enumerate(interfaces):
        yield from state(f"{where}[{index}].state", interface, networks)
    for index, interface in enumerate(interfaces):
        yield from binding(f"{where}[{index}]", interface, by_name.get(interface["name"], {}))
    yield from pairs(path, networks, where, interfaces)
    for index, interface in enumerate(interfaces):
        yield from settings(f"{where}[{index}]", interface)
        if "pod" in by_name.get(interface["name"], {}):
            yield from ports(f"{where}[{index}].ports", interface.get("ports", []))
        if "portRanges" in interface:
            message = "portRanges is specified on interface but the PortRangesSpec feature gate is not enabled"
            yield Cause(message, f"{where}[{index}].name")
        yield from dhcp(field, f"{where}[{index}].dhcpOptions", interface.get("dhcpOptions", {}))


def pairs(path: str, networks: list[Object], where: str, interfaces: list[Object]) -> Iterator[Cause]:
    """Each name is one network's and one interface's."""
    network_names = {network["name"] for network in networks}
    interface_names = {interface["name"] for interface in interfaces}
    for index in repeated(networks):
        name = networks[index]["name"]
        message = f'Network with name "{name}" already exists, every network must have a unique name'
        yield Cause(message, f"{path}[{index}].name", DUPLICATE)
    if any("resourceClaim" in network for network in networks):
        message = "vmi.spec.networks contains DRA networks but NetworkDevicesWithDRA feature gate is not enabled"
        yield Cause(message, path)
    for index, network in enumerate(networks):
        if network["name"] not in interface_names:
            named = f"{path}[{index}].name"
            yield Cause(f"{named} '{network['name']}' not found.", named, REQUIRED)
    for index in repeated(interfaces):
        message = "Only one interface can be connected to one specific network"
        yield Cause(message, f"{where}[{index}].name", DUPLICATE)
    for index, interface in enumerate(interfaces):
        if interface["name"] not in network_names:
            named = f"{where}[{index}].name"
            yield Cause(f"{named} '{interface['name']}' not found.", named)


def one_default(field: str, networks: list[Object]) -> Iterator[Cause]:
    pods = sum("pod" in network for network in networks)
    defaults = sum(network.get("multus", {}).get("default", False) for network in networks)
    if pods > 1:
        path = f"{field}.interfaces"
        yield Cause(f"more than one interface is connected to a pod network in {path}", path, DUPLICATE)
    if defaults > 1:
        yield Cause("Multus CNI should only have one default network", f"{field}.networks")
    if pods and defaults:
        message = "Pod network cannot be defined when Multus default network is defined"
        yield Cause(message, f"{field}.networks")


def sources(path: str, networks: list[Object]) -> Iterator[Cause]:
    for index, network in enumerate(networks):
        count = sum(kind in network for kind in ("pod", "multus", "resourceClaim"))
        if count == 0:
            yield Cause("should have a network type", f"{path}[{index}]", REQUIRED)
        elif count > 1:
            yield Cause("should have only one network type", f"{path}[{index}]", REQUIRED)
    for index, network in enumerate(networks):
        if "multus" in network and not network["multus"]["networkName"]:
            yield Cause("CNI delegating plugin must have a networkName", f"{path}[{index}]", REQUIRED)
            return


def state(path: str, interface: Object, networks: list[Object]) -> Iterator[Cause]:
    found, name = interface.get("state", ""), interface["name"]
    if found not in STATES:
        yield Cause(f"logical {name} interface state value is unsupported: {found}", path)
    words = f'"{name}" interface\'s state "{found}" is'
    if "sriov" in interface and found in ("down", "up"):
        yield Cause(f"{words} not supported for SR-IOV NICs", path)
    if found != "absent":
        return
    if "bridge" not in interface:
        yield Cause(f"{words} supported only for bridge binding", path)
    default = next((each for each in networks if "pod" in each or each.get("multus", {}).get("default")), None)
    if default is not None and default["name"] == name:
        yield Cause(f"{words} not supported on default networks", path)


def binding(path: str, interface: Object, network: Object) -> Iterator[Cause]:
    if sum(kind in interface for kind in BINDINGS) != 1:
        message = f"logical {interface['name']} interface must have exactly one binding method or binding plugin"
        yield Cause(message, path)
    if "masquerade" in interface:
        if "pod" not in network:
            yield Cause("Masquerade interface only implemented with pod network", f"{path}.name")
        if interface.get("macAddress") == RESERVED_MAC:
            message = "The requested MAC address is reserved for the in-pod bridge. Please choose another one."
            yield Cause(message, f"{path}.macAddress")
    if "passtBinding" in interface and "pod" not in network:
        yield Cause("PasstBinding interface only implemented with pod network", f"{path}.name")


def settings(path: str, interface: Object) -> Iterator[Cause]:
    named = f"{path}.name"
    if not INTERFACE_NAME.fullmatch(interface["name"]):
        yield Cause(
            "Network interface name can only contain alphabetical characters, numbers, dashes (-) or underscores (_)",
            named,
        )
    if (model := interface.get("model", "")) not in MODELS:
        yield Cause(f"interface {named} uses model {model} that is not supported.", f"{path}.model", NOT_SUPPORTED)
    if fault := mac_fault(interface.get("macAddress", "")):
        yield Cause(f"interface {named} has {fault}.", f"{path}.macAddress")
    address = interface.get("pciAddress", "")
    if address and not PCI_ADDRESS.fullmatch(address):
        yield Cause(f"interface {named} has malformed PCI address ({address}).", f"{path}.pciAddress")


def mac_fault(address: str) -> str:
    digits = re.sub("[^0-9a-fA-F]", "", address)
    if not address:
        return ""
    if not MAC.fullmatch(address) or len(digits) not in MAC_DIGITS:
        return f"malformed MAC address ({address})"
    return f"too long MAC address ({address})" if len(digits) > MAC_DIGITS[0] else ""


def ports(path: str, found: list[Object]) -> Iterator[Cause]:
    names: set[str] = set()
    for index, port in enumerate(found):
        name = port.get("name", "")
        if not name:
            continue
        if name in names:
            yield Cause(f"Duplicate name of the port: {name}", f"{path}[{index}].name", DUPLICATE)
        if not port_name(name):
            yield Cause(f"Invalid name of the port: {name}", f"{path}[{index}].name")
        names.add(name)
    for index, port in enumerate(found):
        if port["port"] == 0:
            yield Cause("Port field is mandatory.", f"{path}[{index}].port", REQUIRED)
        if not 0 <= port["port"] < 65536:
            yield Cause("Port field must be in range 0 < x < 65536.", f"{path}[{index}].port")
        if port.get("protocol", "") not in ("", "TCP", "UDP"):
            yield Cause("Unknown protocol, only TCP or UDP allowed", f"{path}[{index}].protocol")


def dhcp(field: str, path: str, options: Object) -> Iterator[Cause]:
    private = [option["option"] for option in options.get("privateOptions", ())]
    if len(set(private)) < len(private):
        yield Cause("Found Duplicates: you have provided duplicate DHCPPrivateOptions", field)
    for option in private:
        if option not in PRIVATE_OPTIONS:
            yield Cause("provided DHCPPrivateOptions are out of range, must be in range 224 to 254", field)
    for index, server in enumerate(options.get("ntpServers", ())):
        if not is_ipv4(server):
            yield Cause("NTP servers must be a list of valid IPv4 addresses.", f"{path}.ntpServers[{index}]")


def is_ipv4(text: str) -> bool:
    try:
        # Zeros in front are taken, as of old.
        return bool(ipaddress.IPv4Address(re.sub(r"\b0+(?=[0-9])", "", text)))
    except ValueError:
        return False


def boot_order(field: str, spec: Object) -> Iterator[Cause]:
    """Of interfaces, among themselves and with disks."""
    devices = spec["domain"]["devices"]
    taken = {disk["bootOrder"] for disk in devices.get("disks", ()) if "bootOrder" in disk}
    for index, interface in enumerate(devices.get("interfaces", ())):
        order = interface.get("bootOrder")
        if order == 0:
            # The path is KubeVirt's, which is the spec's with an index.
            yield Cause(f"{field}[{index}] must have a boot order > 0, if supplied", f"{field}[{index}].bootOrder")
        elif order is not None:
            path = f"{field}.domain.devices.interfaces[{index}].bootOrder"
            if order in taken:
                yield Cause(f"Boot order for {path} already set for a different device.", path)
            taken.add(order)


def repeated(items: list[Object]) -> list[int]:
    """The places of items whose name was there before."""
    names = [item["name"] for item in items]
    return [index for index, name in enumerate(names) if name in names[:index]]
