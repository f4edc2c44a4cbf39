"""Authority: a certificate authority for tests, and the certificates that it issues, as files."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, in files that a test replaces as an operator would."""

    cert: Path
    key: Path

    def replace_by(self, other: "Issued") -> None:
        """Replace the files by another certificate."""
        self.cert.write_bytes(other.cert.read_bytes())
        self.key.write_bytes(other.key.read_bytes())


class Authority:
    """A certificate authority; `file` holds its own certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self._name = name
        self._issued = 0
        self.file = folder / f"{name}.ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, *, ends_in: dt.timedelta = dt.timedelta(days=9), begins: dt.timedelta = dt.timedelta(days=-1)) -> Issued:
        """Issue a certificate for this machine, valid for a server and for a client."""
        now = dt.datetime.now(dt.UTC)
        made = self._ca.issue_cert(
            "localhost", "127.0.0.1", not_before=now + min(begins, ends_in - dt.timedelta(days=1)), not_after=now + ends_in
        )
        self._issued += 1
        issued = Issued(self._folder / f"{self._name}.{self._issued}.cert.pem", self._folder / f"{self._name}.{self._issued}.key.pem")
        issued.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(issued.key)
        return issued
