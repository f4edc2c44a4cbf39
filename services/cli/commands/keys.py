"""Keys: `hooktide keys` makes the first keys of a registry whose service is started by hand."""

import dataclasses
from collections.abc import Callable

from services.cli.composition import Composition, FirstKeys
from services.cli.defaults import AsJson
from services.cli.errors import CommandError
from services.cli.output import say, say_json, say_styled
from services.cli.supervise.data_directory import Keys
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.logs import configure_logs


def keys_command(composition: Composition) -> Callable[..., None]:
    """Return the command that makes the composition's first keys."""

    def keys(*, as_json: AsJson = False) -> None:
        """Make the first keys, before the first `serve subscription`.

        It reads the same HOOKTIDE_* variables as that service, which must not run meanwhile. Other keys are made by the REST API, with the
        admin key that this prints. `hooktide up` needs none of this.
        """
        configure_logs("keys", "warning")
        settings = read_settings(SubscriptionSettings)
        first = composition.bootstrap(settings)
        if first is None:
            message = "there are keys already, so none was made; with an admin key, POST /v1/keys makes more"
            raise CommandError(message)
        (_say_json if as_json else _say)(first)

    return keys


def say_first_keys(first: FirstKeys | Keys) -> None:
    """Print the first keys for people."""
    for role, key, purpose in (
        ("admin", first.admin, "makes consumers and keys, by the REST API"),
        ("emitter", first.emitter, "publishes: `hooktide emit`, the package hooktide"),
        ("consumer", first.consumer, "subscribes and looks up: `hooktide subscribe`, the REST API"),
    ):
        say_styled(f"  {role:<20}", (key, "yellow"))
        say_styled((f"  {'':<20}{purpose}", "dim"))
    say(f"  {'the consumer':<20}{first.consumer_id}")


def _say(first: FirstKeys) -> None:
    say("The first keys. They cannot be read from Hooktide again, so keep them:")
    say_first_keys(first)


def _say_json(first: FirstKeys) -> None:
    say_json(dataclasses.asdict(Keys(first.consumer_id, first.admin, first.emitter, first.consumer)))
