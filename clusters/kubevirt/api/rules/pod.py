"""What of an instance becomes its pod's: names, name service, probes, credentials, how it starts and is evicted."""

import ipaddress
from collections.abc import Iterator

from clusters.kubevirt.api.refusals import NOT_SUPPORTED, REQUIRED, Cause
from clusters.kubevirt.api.rules.names import dns_label, dns_subdomain, size
from virtflow.kube import Object

__all__ = [
    "access_credentials",
    "dns",
    "eviction_strategy",
    "hostname",
    "probes",
    "service_account",
    "start_strategy",
    "subdomain",
]

EVICTION_STRATEGIES = ("None", "LiveMigrate", "LiveMigrateIfPossible", "External")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None", "")
MOST_NAMESERVERS = 3
MOST_SEARCHES = 6
LONGEST_SEARCHES = 256
PROBE_HANDLERS = ("httpGet", "tcpSocket", "exec", "guestAgentPing")
NETWORK_HANDLERS = ("httpGet", "tcpSocket")


def hostname(field: str, spec: Object) -> Iterator[Cause]:
    path = f"{field}.hostname"
    if errors := spec.get("hostname") and dns_label(spec["hostname"]):
        yield Cause(f"{path} does not conform to the kubernetes DNS_LABEL rules : {', '.join(errors)}", path)


def subdomain(field: str, spec: Object) -> Iterator[Cause]:
    path = f"{field}.subdomain"
    if errors := spec.get("subdomain") and dns_subdomain(spec["subdomain"]):
        yield Cause(f"{path} does not conform to the kubernetes DNS_SUBDOMAIN rules : {', '.join(errors)}", path)


def start_strategy(field: str, spec: Object) -> Iterator[Cause]:
    path = f"{field}.startStrategy"
    strategy = spec.get("startStrategy")
    if strategy is None:
        return
    if strategy != "Paused":
        yield Cause(f"{path} is set with an unrecognized option: {strategy}", path)
    elif "livenessProbe" in spec:
        yield Cause(
            f"either {path} or {field}.livenessProbe should be provided."
            "Pausing VMI with LivenessProbe is not supported",
            path,
        )


def eviction_strategy(field: str, spec: Object) -> Iterator[Cause]:
    path = f"{field}.evictionStrategy"
    strategy = spec.get("evictionStrategy", "None")
    if strategy not in EVICTION_STRATEGIES:
        yield Cause(f"{path} is set with an unrecognized option: {strategy}", path)


def probes(field: str, spec: Object) -> Iterator[Cause]:
    names = [name for name in ("readinessProbe", "livenessProbe") if name in spec]
    for name in names:
        yield from probe_handlers(f"{field}.{name}", spec[name])
    if any("pod" in network for network in spec.get("networks", ())):
        return
    for name in names:
        for handler in NETWORK_HANDLERS:
            if handler in spec[name]:
                path = f"{field}.{name}.{handler}"
                yield Cause(f"{path} is only allowed if the Pod Network is attached", path)


def probe_handlers(path: str, probe: Object) -> Iterator[Cause]:
    count = sum(handler in probe for handler in PROBE_HANDLERS)
    if count > 1:
        yield Cause(f"{path} must have exactly one probe type set", path)
    if count < 1:
        yield Cause(
            f"either {path}.tcpSocket, {path}.exec or {path}.httpGet must be set if a {path} is specified",
            path,
            REQUIRED,
        )


def access_credentials(field: str, spec: Object) -> Iterator[Cause]:
    sources = {name for volume in spec.get("volumes", ()) for name in volume}
    for index, credential in enumerate(spec.get("accessCredentials", ())):
        path = f"{field}.accessCredentials[{index}]"
        if "sshPublicKey" in credential:
            yield from propagation(path, credential["sshPublicKey"]["propagationMethod"], sources)
        for kind, methods in (
            ("sshPublicKey", ("noCloud", "configDrive", "qemuGuestAgent")),
            ("userPassword", ("qemuGuestAgent",)),
        ):
            if kind in credential:
                yield from one_source_one_method(path, kind, credential[kind], methods)
        if len(credential.keys() & {"sshPublicKey", "userPassword"}) != 1:
            yield Cause(f"{path} must have exactly one access credential type set", path)


def propagation(path: str, method: Object, sources: set[str]) -> Iterator[Cause]:
    where = f"{path}.sshPublicKey.propagationMethod"
    for name, volume in (("noCloud", "cloudInitNoCloud"), ("configDrive", "cloudInitConfigDrive")):
        if name in method and volume not in sources:
            yield Cause(
                f"{path} requires a {name} volume to exist when the {name} propagationMethod is in use.", where
            )
    if "qemuGuestAgent" in method and not method["qemuGuestAgent"].get("users"):
        yield Cause(
            f"{path} requires at least one user to be present in the users list", f"{where}.qemuGuestAgent.users"
        )


def one_source_one_method(path: str, kind: str, credential: Object, methods: tuple[str, ...]) -> Iterator[Cause]:
    if "secret" not in credential["source"]:
        yield Cause(f"{path} must have exactly one source set", f"{path}.{kind}.source")
    if sum(method in credential["propagationMethod"] for method in methods) != 1:
        yield Cause(f"{path} must have exactly one propagationMethod set", f"{path}.{kind}.propagationMethod")


def dns(field: str, spec: Object) -> Iterator[Cause]:
    policy, path = spec.get("dnsPolicy", ""), f"{field}.dnsPolicy"
    if policy not in DNS_POLICIES:
        valid = " ".join(DNS_POLICIES)
        yield Cause(f"DNSPolicy: {policy} is not supported, valid values: [{valid}]", path, NOT_SUPPORTED)
    config = spec.get("dnsConfig")
    if policy == "None" and config is None:
        yield Cause("must provide `dnsConfig` when `dnsPolicy` is None", f"{field}.dnsConfig", REQUIRED)
    elif policy == "None" and not (config or {}).get("nameservers"):
        yield Cause("must provide at least one DNS nameserver when `dnsPolicy` is None", "nameservers", REQUIRED)
    elif config is not None:
        yield from dns_config(config)


def dns_config(config: Object) -> Iterator[Cause]:
    servers, searches = config.get("nameservers", []), config.get("searches", [])
    if len(servers) > MOST_NAMESERVERS:
        yield Cause(f"must not have more than {MOST_NAMESERVERS} nameservers: [{' '.join(servers)}]", "nameservers")
    for server in servers:
        if not is_address(server):
            yield Cause(f"must be valid IP address: {server}", "nameservers")
    if len(searches) > MOST_SEARCHES:
        yield Cause(f"must not have more than {MOST_SEARCHES} search paths", "searchDomains")
    if size(" ".join(searches)) > LONGEST_SEARCHES:
        yield Cause(
            f"must not have more than {LONGEST_SEARCHES} characters (including spaces) in the search list",
            "searchDomains",
        )
    for search in searches:
        for error in dns_subdomain(search):
            yield Cause(error, "searchDomains")
    for option in config.get("options", ()):
        if not option.get("name"):
            yield Cause("Option.Name must not be empty", "options")


def is_address(text: str) -> bool:
    try:
        # A zone ("fe80::1%eth0") is none of an address's.
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def service_account(field: str, spec: Object) -> Iterator[Cause]:
    name, path = spec.get("serviceAccountName", ""), f"{field}.serviceAccountName"
    if not name:
        return
    if errors := dns_subdomain(name):
        yield Cause(f"{path} is not a valid service account name: {'; '.join(errors)}", path)
    for volume in spec.get("volumes", ()):
        other = volume.get("serviceAccount", {}).get("serviceAccountName", name)
        if other != name:
            yield Cause(
                f'spec.serviceAccountName "{name}" and serviceAccount volume "{other}" must reference the same '
                "service account",
                path,
            )
            break
