"""Delivery: follows the log, routes each event, pushes it, and records what became of it.

event log → [worker: subscriptions → dispatch → request → transport] → callback URL, and back into the ledger

`worker/`         the loops: from the log to the lanes, between the lanes and the ledger, and the ageing of what is kept
`subscriptions/`  what delivery knows of subscriptions, how fresh that is, and whom an event is for
`dispatch/`       which delivery goes next, and what follows from its answer
`request/`        one signed request, made from a delivery
`transport/`      HTTP: connections, requests and answers; it knows nothing of delivery
`sinks/`          talking to a sink without an event: verification and test events
`ledger/`         the durable state of every delivery

`app.py` puts the service together and `server.py` answers its gRPC calls; `model.py` has the words, `errors.py` the failures.
"""
