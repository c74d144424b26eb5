//! An empty library: cargo wants a target beside the dependencies.
