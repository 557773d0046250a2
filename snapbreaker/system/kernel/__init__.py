"""What the kernel has in memory, and no file: settings, rules of packets, addresses, routes, swap, modules, names.

Each file is one kind of it and has the same shape: ``read`` it into a table (name: state), ``put_back`` what
differs from an older table, and say which differences are nobody's. ``kinds`` has them all, and their order.
"""
