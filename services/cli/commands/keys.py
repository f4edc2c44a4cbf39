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
        """Create the first API keys, before the first `serve subscription`.

        The command reads the same HOOKTIDE_* variables as that service, which must not run at the same time. To create more keys, use the
        REST API with the admin key that this command prints. `hooktide up` creates the first keys by itself.
        """
        configure_logs("keys", "warning")
        settings = read_settings(SubscriptionSettings)
        first = composition.bootstrap(settings)
        if first is None:
            message = "the registry has keys already, so no key was made; create more with POST /v1/keys and an admin key"
            raise CommandError(message)
        (_say_json if as_json else _say)(first)

    return keys


def say_first_keys(first: FirstKeys | Keys) -> None:
    """Print the first keys for people."""
    for role, key, purpose in (
        ("admin", first.admin, "for the REST API: creates consumers and keys"),
        ("emitter", first.emitter, "for `hooktide emit` and the package hooktide: publishes events"),
        ("consumer", first.consumer, "for `hooktide subscribe` and the REST API: subscribes, and reads events and deliveries"),
    ):
        say_styled(f"  {role:<20}", (key, "yellow"))
        say_styled((f"  {'':<20}{purpose}", "dim"))
    say(f"  {'the consumer':<20}{first.consumer_id}")


def _say(first: FirstKeys) -> None:
    say("These are the first keys. Store them now, because Hooktide cannot show them again:")
    say_first_keys(first)


def _say_json(first: FirstKeys) -> None:
    say_json(dataclasses.asdict(Keys(first.consumer_id, first.admin, first.emitter, first.consumer)))
