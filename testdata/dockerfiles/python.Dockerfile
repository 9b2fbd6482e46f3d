FROM python:3.13-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 \
    PATH="/venv/bin:$PATH"

# what only building needs
FROM base AS build
RUN apt-get update \
    # compilers
    && apt-get install -y --no-install-recommends gcc \

    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /venv
COPY requirements.txt .
RUN --mount=type=secret,id=pip,target=/root/.pip/pip.conf pip install -r requirements.txt

FROM base
COPY --from=build --chown=1000:1000 /venv /venv
WORKDIR /app
COPY --chmod=u=rwX,go=rX app ./app
USER 1000:1000
HEALTHCHECK --interval=30s --timeout=3s CMD python -c "import urllib.request as r; r.urlopen('http://localhost:8000')"
CMD ["python", "-m", "app"]
