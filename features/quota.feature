Feature: A tenant gets what its quota grants, and is told when that is used up
  The platform grants each tenant a quota: how many pods, how much memory, how many virtual machines. A virtual
  machine that runs takes one pod, with the memory of its guest and some more. Limits bound each single container.
  What is granted is in the folder `tenants` beside this file. A tenant reads of its virtual machines through the
  IAM gateway, as it does everything.

  Scenario: A virtual machine within the quota runs
    Given the tenant "tenant-a" of "one-machine.yaml"
    When "tenant-a" creates the virtual machine of "test-vm.yaml"
    Then the gateway answers 201
    And the virtual machine runs within 60 seconds

  Scenario: A virtual machine over the quota is accepted, and says why it does not run
    Given the tenant "tenant-a" of "one-machine.yaml"
    And "tenant-a" has the running virtual machine of "test-vm.yaml"
    When "tenant-a" asks for the virtual machine "second" of "test-vm.yaml"
    Then the gateway answers 201
    And the virtual machine "second" tells "tenant-a" "exceeded quota: tenant-a-quota"
    And the virtual machine "second" does not run

  Scenario: A virtual machine that waits for its quota runs when the platform grants more
    Given the tenant "tenant-a" of "one-machine.yaml"
    And "tenant-a" has the running virtual machine of "test-vm.yaml"
    And "tenant-a" waits for the virtual machine "second" of "test-vm.yaml", over its quota
    When the platform changes "tenant-a" to "two-machines.yaml"
    Then the virtual machine "second" runs within 60 seconds

  Scenario: A virtual machine with a container over the limit says why it does not run
    Given the tenant "tenant-a" of "small-containers.yaml"
    When "tenant-a" asks for the virtual machine "large" of "large-vm.yaml"
    Then the gateway answers 201
    And the virtual machine "large" tells "tenant-a" "maximum memory usage per Container is 2Gi"
    And the virtual machine "large" does not run

  Scenario: What a tenant does not say of its containers, the platform's limits say
    Given the tenant "tenant-a" of "two-cores-by-default.yaml"
    When "tenant-a" creates the virtual machine of "test-vm.yaml"
    Then the virtual machine runs within 60 seconds
    And the launcher of the virtual machine has the CPU limit "2"

  Scenario: A tenant at its limit does not slow another
    Given the tenant "tenant-a" of "one-machine.yaml"
    And "tenant-a" has the running virtual machine of "test-vm.yaml"
    And "tenant-a" waits for 5 virtual machines of "test-vm.yaml", over its quota
    And the tenant "tenant-b" of "one-machine.yaml"
    When "tenant-b" creates the virtual machine of "test-vm.yaml"
    Then the virtual machine runs within 60 seconds
    And it has taken at most 10 times as long as the virtual machine of "tenant-a"
    And virt-controller tries seldom, and ever more seldom, what the quota of "tenant-a" refuses

  Scenario: An autoscaler at the quota's limit says why it is stuck
    Given the tenant "tenant-a" of "two-machines.yaml"
    And "tenant-a" has the replica set of "test-vmirs.yaml" with the autoscaler of "test-hpa.yaml"
    When 28 users send 1 request a second each until the autoscaler is stuck
    Then it wants more than the 2 virtual machines that the quota lets run
    And it says why: "exceeded quota: tenant-a-quota"

  Scenario: A virtual machine over the number that is granted is refused
    Given the tenant "tenant-a" of "one-machine-by-number.yaml"
    And "tenant-a" has the running virtual machine of "test-vm.yaml"
    When "tenant-a" asks for the virtual machine "second" of "test-vm.yaml"
    Then the gateway answers 403 "Forbidden"
    And the answer says "exceeded quota: tenant-a-quota, requested: count/virtualmachines.kubevirt.io=1, used: count/virtualmachines.kubevirt.io=1, limited: count/virtualmachines.kubevirt.io=1"
