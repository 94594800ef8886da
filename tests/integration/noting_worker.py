"""The worker, noting every credential it gets or makes up: `python -m tests.integration.noting_worker ENDPOINTS`.

For a test to look for them wherever they must not be. The notes go to the file that VIRTFLOW_TEST_NOTES names.
"""

import os
import secrets
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from activities import bearers
from virtflow import worker
from virtflow.kube import KubeClient

NOTES = "VIRTFLOW_TEST_NOTES"


def note(credential: str) -> str:
    with Path(os.environ[NOTES]).open("a") as notes:
        notes.write(f"{credential}\n")
    return credential


def noting(make: Callable[..., str]) -> Callable[..., str]:
    @wraps(make)
    def made(*arguments: Any) -> str:
        return note(make(*arguments))

    return made


def main() -> None:
    mint = KubeClient.create_token

    @wraps(mint)
    async def minted(*arguments: Any, **named: Any) -> str:
        return note(await mint(*arguments, **named))

    with (
        patch.object(KubeClient, "create_token", minted),
        patch.object(bearers, "forged", noting(bearers.forged)),
        patch.object(secrets, "token_urlsafe", noting(secrets.token_urlsafe)),
    ):
        worker.main()


if __name__ == "__main__":
    main()
