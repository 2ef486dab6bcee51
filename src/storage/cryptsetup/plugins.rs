//! Token plug-ins of libcryptsetup, of which the agent uses none.

/// Stops libcryptsetup from loading token plug-ins in this process. Call it before anything opens a header.
///
/// A plug-in for the agent's own tokens may be installed for stock tools. It asks the key service, which a worker must not do, and a
/// plug-in of another release could reject the tokens that this one writes. And no worker should run code from anybody else.
pub fn without_plugins() {
    // `false` is of a library from before there were plug-ins
    external_tokens::disable();
}
