from pathlib import Path

import pytest

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.settings import DeliverySettings, IngestSettings, SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from tests.runtime.configuration.mistakes import mistakes

FILED = [
    (SubscriptionSettings, "SUBSCRIPTION_DATABASE_URL", "sqlite:////var/lib/s.db"),
    (IngestSettings, "INGEST_DATABASE_URL", "sqlite:////var/lib/i.db"),
    (DeliverySettings, "DELIVERY_DATABASE_URL", "sqlite:////var/lib/d.db"),
    (DeliverySettings, "DELIVERY_PROXY", "http://me:hunter2@proxy.example:3128"),
]


@pytest.mark.parametrize(("kind", "name", "value"), FILED)
def test_whatever_may_hold_a_password_can_stand_in_a_file(tmp_path: Path, kind: type[Settings], name: str, value: str) -> None:
    file = tmp_path / "value"
    file.write_text(f"{value}\n")
    read = read_settings(kind, {f"HOOKTIDE_{name}_FILE": str(file)})
    assert getattr(read, name.lower()) == value
    assert "hunter2" not in repr(read)
    both = read_settings(kind, {f"HOOKTIDE_{name}_FILE": str(file), f"HOOKTIDE_{name}": value.replace("hunter2", "first")})
    assert getattr(both, name.lower()) == value.replace("hunter2", "first")
    file.unlink()
    (line,) = mistakes(kind, {f"HOOKTIDE_{name}_FILE": str(file)})
    assert line == f"HOOKTIDE_{name}_FILE={file}: the file cannot be read: No such file or directory; name a file with the value"


@pytest.mark.parametrize("content", ["hunter2", "http://me:hunter2@proxy.example", b"hunter2\xff", ""])
def test_what_stands_in_a_file_is_never_shown(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "value"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (line,) = mistakes(DeliverySettings, {"HOOKTIDE_DELIVERY_PROXY_FILE": str(file)})
    assert line.startswith("HOOKTIDE_DELIVERY_PROXY_FILE")
    assert "hunter2" not in line
