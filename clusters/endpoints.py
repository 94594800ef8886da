"""Where a running cluster's parts are: what every profile's `up` leaves behind, and all that tests need of it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from virtflow.errors import InfrastructureError
from virtflow.files import write_whole

__all__ = ["ENDPOINTS_FILE", "ClusterError", "Endpoints"]

ENDPOINTS_FILE = "endpoints.json"
"""In the folder of a cluster's state."""


class ClusterError(InfrastructureError):
    """A cluster could not be brought up, reached or taken down."""


@dataclass(frozen=True)
class Endpoints:
    """Addresses and files of one cluster. Holds no secret: credentials stay in the files it names."""

    name: str
    kubevirt: str
    """What plays KubeVirt here, for reports: a version, or that it is a stand-in."""
    kubeconfig: Path
    """Of the platform's administrator, who prepares tenants and reads evidence."""
    ca_cert: Path
    """The CA of the gateway's certificate."""
    gateway_url: str
    guests_url: str
    """Front of the guests: `<guests_url>/namespaces/NS/virtualmachineinstancereplicasets/NAME/`."""
    audit_log: Path
    access_log: Path
    temporal_address: str
    temporal_ui: str

    def save(self, file: Path) -> None:
        write_whole(file, json.dumps(dataclasses.asdict(self), default=str, indent=1) + "\n")

    def component_logs(self) -> list[Path]:
        """What the cluster's programs say, a file each. They lie beside the records of what was asked of them."""
        # Rotated, a record's name goes on with the time. What supervisord and its watch tell each other is no words.
        records = (self.audit_log.stem, self.access_log.stem)
        logs = self.access_log.parent.glob("*.log")
        return sorted(log for log in logs if not log.stem.startswith(records) and "---" not in log.stem)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Raises ClusterError if no cluster left this file, or another version of virtflow did."""
        try:
            values: dict[str, Any] = json.loads(file.read_text())
            for path in ("kubeconfig", "ca_cert", "audit_log", "access_log"):
                values[path] = Path(values[path])
            return cls(**values)
        except FileNotFoundError:
            raise ClusterError("No cluster is up. Type `make up` to start one.") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ClusterError(
                f"{file} is not what this version of virtflow writes ({error}). Type `make down`, then `make up`."
            ) from error
