//! Networks of guests: the bridge, routed attachment with DHCP, limits.
