"""The run's own certificates: whoever has none of them cannot speak to driver or pilots.

Dask's messages are pickles, so whoever can send one runs code as the user. Every run therefore
makes a certificate of its own, and both sides refuse any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcburst.comms.staging import write_private


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the run's certificate and key lie (0600 files in the run's 0700 folder).

    Attributes:
        certificate: PEM of the certificate, which is its own authority.
        key: PEM of its private key.
    """

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Credentials:
        """Make a fresh pair in `folder`, which must be private already."""
        from distributed.security import Security

        made = Security.temporary()
        credentials = cls(folder / "tls.crt", folder / "tls.key")
        write_private(credentials.certificate, str(made.tls_ca_file).encode())
        write_private(credentials.key, str(made.tls_scheduler_key).encode())
        return credentials

    def security(self) -> Any:
        """Dask's view of them: the same pair for every role, encryption required."""
        from distributed.security import Security

        certificate, key = str(self.certificate), str(self.key)
        return Security(
            tls_ca_file=certificate,
            tls_client_cert=certificate,
            tls_client_key=key,
            tls_scheduler_cert=certificate,
            tls_scheduler_key=key,
            tls_worker_cert=certificate,
            tls_worker_key=key,
            require_encryption=True,
        )
