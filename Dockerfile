# One image, many commands: `jangkau serve intake`, `jangkau migrate`, `jangkau status`, ...
# Build:  docker build --tag jangkau:dev .
ARG PYTHON_IMAGE=python:3.13.13-slim-bookworm

# ---- build: everything that needs pip stays in this stage -----------------------------------
FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /src
RUN python -m venv /opt/jangkau

# The libraries first, by hash: this layer is built again only when the requirements change.
COPY requirements.txt ./
RUN /opt/jangkau/bin/pip install --require-hashes --requirement requirements.txt

COPY pyproject.toml README.md ./
COPY shared/ shared/
COPY services/ services/
COPY ops/ ops/
# `pip check` fails the build when the requirements and pyproject.toml have drifted apart.
RUN /opt/jangkau/bin/pip install --no-deps . \
 && /opt/jangkau/bin/pip check \
 && /opt/jangkau/bin/pip uninstall --yes pip

# ---- run ------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE}

# A number, so that an orchestrator can see that it is not root without reading /etc/passwd.
RUN groupadd --gid 10001 jangkau \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin jangkau

COPY --from=build /opt/jangkau /opt/jangkau
COPY districts/ /app/districts/

# pip compiled everything at build time and the root file system is read-only at run time, so
# nothing is ever written beside the code. HOME is a place that does exist: some libraries ask.
ENV PATH=/opt/jangkau/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    JANGKAU_DISTRICTS=/app/districts

WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

ENTRYPOINT ["jangkau"]
CMD ["--help"]
