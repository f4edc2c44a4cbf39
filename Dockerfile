# One image for every service; the command selects the service: docker run hooktide serve ingest
FROM python:3.13-slim-bookworm AS build

ENV UV_PYTHON_DOWNLOADS=never \
    UV_PYTHON=/usr/local/bin/python3 \
    UV_PROJECT_ENVIRONMENT=/opt/hooktide \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1

RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /src
# Install the dependencies first, so that a change of our own code leaves their layer alone.
COPY pyproject.toml uv.lock hatch_build.py README.md LICENSE ./
COPY protos/pyproject.toml protos/pyproject.toml
RUN uv sync --frozen --no-dev --no-install-workspace --no-cache
COPY protos protos
COPY services services
COPY gateway gateway
RUN uv sync --frozen --no-dev --no-editable --no-cache


FROM python:3.13-slim-bookworm

# A new volume on this folder takes over the folder's owner.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin hooktide \
    && install -d -o hooktide -g hooktide -m 0700 /var/lib/hooktide

COPY --from=build /opt/hooktide /opt/hooktide

ENV PATH=/opt/hooktide/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOOKTIDE_DATA_DIR=/var/lib/hooktide

WORKDIR /var/lib/hooktide
USER 10001
ENTRYPOINT ["hooktide"]
CMD ["--help"]
