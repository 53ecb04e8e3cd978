"""Starting, finding and stopping the two model servers on this machine."""
