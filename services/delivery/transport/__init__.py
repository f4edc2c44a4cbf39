"""Transport: what every request to a sink leaves by, and the answers come in by.

attempt → [transport] → callback URL

`protocol.py`   what the rest of delivery knows of it; a test or a benchmark may put another one in its place
`http.py`       ours, HTTP/1.1 on the event loop: judges the URL and finds out what has to be known before a request can leave
`resolver.py`      which addresses a name has, judged as a whole; `tls_contexts.py` by which certificates an endpoint is verified
`single_flight.py` looks a name up, or makes a context, once for all who ask, in turns that are fair to consumers
`pool.py`       whose turn it is, and over which connection; `exchange.py` is a request on its way; `fair_queue.py` has consumers take turns
`dialling.py`   how a connection comes to stand, also through a proxy; `tls_stream.py` puts TLS over it
`connection.py` one that stands, and what leaves over it; `response_parser.py` reads the answers
"""
