//! Nothing but benches: `cargo bench -p nova-benchmarks`. What whole clusters do is measured by `loadtest/`.
