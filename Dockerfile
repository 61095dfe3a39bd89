# The mbconv program for the CPU.
#
#   docker build -t mbconv .
#   docker run --rm -v "$PWD:/work" mbconv train digits --out runs/digits

FROM rust:1.95-slim AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package mbconv && strip target/release/mbconv

FROM gcr.io/distroless/cc-debian12
COPY --from=build /src/target/release/mbconv /usr/local/bin/mbconv
WORKDIR /work
ENTRYPOINT ["/usr/local/bin/mbconv"]
