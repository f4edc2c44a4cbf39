"""Member names: the names of a subscription's members that differ between REST and the contract.

Law: every such pair of names is here once, for requests, answers and errors alike.
"""

from collections.abc import Mapping

# The contract's kinds of credentials by their types in REST.
CREDENTIAL_KINDS: Mapping[str, str] = {
    "PLAIN": "plain",
    "ACCESSTOKEN": "access_token",
    "HEADER": "header",
    "OAUTH2": "oauth2",
    "MTLS": "mtls",
}
# For each kind, the contract's names of its members by their names in REST; the last member is the secret.
CREDENTIAL_MEMBERS: Mapping[str, Mapping[str, str]] = {
    "plain": {"identifier": "identifier", "secret": "secret"},
    "access_token": {"accesstokentype": "token_type", "accesstoken": "token"},
    "header": {"name": "name", "value": "value"},
    "oauth2": {"tokenurl": "token_url", "clientid": "client_id", "scope": "scope", "clientsecret": "client_secret"},
    "mtls": {"certificate": "certificate", "privatekey": "private_key"},
}
HEADERS_FIELD = "subscription.protocol_settings.headers."
HEADERS_PLACE = "/protocolsettings/headers/"
# The places in a subscription's body by the contract's fields.
PLACES: Mapping[str, str] = {
    "subscription.config.retry.delays": "/config/retry/delays_seconds",
    "subscription.protocol_settings": "/protocolsettings",
    "subscription.protocol_settings.headers": "/protocolsettings/headers",
    "subscription.protocol_settings.timeout": "/protocolsettings/timeout_seconds",
    "subscription.protocol_settings.content_mode": "/protocolsettings/content_mode",
    "subscription.protocol_settings.signatures": "/protocolsettings/signatures",
    "subscription.protocol_settings.ca_certificates": "/protocolsettings/ca_certificates",
    "subscription.sink_credential": "/sinkcredential",
    **{
        f"subscription.sink_credential.{kind}.{field}": f"/sinkcredential/{member}"
        for kind, members in CREDENTIAL_MEMBERS.items()
        for member, field in members.items()
    },
}
