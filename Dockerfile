# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
# The image's own toolchain, so that rust-toolchain.toml does not fetch another.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin portcullis && cp target/release/portcullis /portcullis && mkdir /state

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /portcullis /usr/local/bin/portcullis
# For users and sessions: mount a volume here and set PORTCULLIS_STORE=sqlite:/var/lib/portcullis/portcullis.db
COPY --from=build --chown=65532:65532 /state /var/lib/portcullis
WORKDIR /etc/portcullis
# Starters: mount your own over them, read-only (`-v "$PWD/policies:/etc/portcullis/policies:ro"`).
COPY policies policies
# The admin listener (probes, status, metrics) stays on the container's loopback; open it to your own network only,
# with PORTCULLIS_ADMIN__LISTEN.
ENV PORTCULLIS_LISTEN=0.0.0.0:8080
EXPOSE 8080
USER nonroot
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["serve"]
