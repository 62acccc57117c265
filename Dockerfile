# The environment of requirements.lock, TeX and this checkout; the working directory is mounted at /work (docs/reuse.md).
FROM python:3.11-slim-bookworm
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends git latexmk texlive-latex-base texlive-latex-recommended \
        texlive-latex-extra texlive-fonts-recommended lmodern \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /opt/eigendrift/
RUN python -m pip install --no-cache-dir -r /opt/eigendrift/requirements.lock
COPY . /opt/eigendrift
RUN python -m pip install --no-cache-dir --no-deps /opt/eigendrift \
    && git config --system --add safe.directory /opt/eigendrift
# Any user may run it: caches go where everybody may write.
ENV XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
CMD ["snakemake", "-s", "/opt/eigendrift/Snakefile", "--cores", "all"]
