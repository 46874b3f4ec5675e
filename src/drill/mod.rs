//! A simulated shop with faults over real OTLP: the demo, and recordings of it.
