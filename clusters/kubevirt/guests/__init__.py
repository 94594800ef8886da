"""What runs inside the virtual machines of the local cluster: an HTTP service whose work costs CPU time.

Without it nothing would use a virtual machine, and no autoscaler would have anything to go by. It stands in
for the guest operating system only: who may answer, and how busy it is, follows from the cluster's objects.
"""
