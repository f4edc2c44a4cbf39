"""Delivery: follows the log, routes each event, pushes it, and records the outcome.

event log → [worker: subscriptions → dispatch → request → transport] → sink; the outcome → dispatch → worker → ledger

`worker/`         the loops: from the log to the lanes, between the lanes and the ledger, and retention in both stores
`subscriptions/`  the replica of subscriptions, how fresh it is, and which subscriptions an event is for
`dispatch/`       which delivery is attempted next, and what follows from the answer
`request/`        one signed request, made from a delivery
`transport/`      HTTP: connections, requests and answers; it knows no deliveries
`sinks/`          calls to a sink that belong to no delivery: sink verification and test events
`ledger/`         the durable state of every delivery
`listings/`       what callers read of deliveries, with a row or without

`app.py` puts the service together, and `server.py` answers its gRPC calls. `model.py` has the types, `errors.py` the errors.
"""
