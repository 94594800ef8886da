"""Whether what plays KubeVirt can be told from a real KubeVirt by what it writes.

`situations/` holds what a real KubeVirt 1.9 wrote in thirteen situations, in the form that this package brings every
run into, so that the two can be compared word by word: each YAML file has the action, and then an account of it.
`play` does it again on a cluster, `records` reads what was written there, `names`, `course` and `picture` make the
account, `compare` tells the accounts apart.

An account says nothing of what differs between two runs of one program: drawn names, uids, times, lost races and
their retries. Nor has it one order for everything: what independent controllers write interleaves at will. It has
the order of each aspect of each object, and `causes` what must come before what across objects.

In the files `course` has the steps that objects went through, by aspect, each as 'actor value'; `objects`, `events`
and `columns` what there was at the end. `*` stands for what is drawn, `<…>` for what differs from run to run,
`times` for several alike, and `sometimes` marks a step that a real KubeVirt takes in some runs only.
"""
