//! virtio 1.2 devices over PCI: split rings, the transport, and the devices.
