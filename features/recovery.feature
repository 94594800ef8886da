Feature: What fails comes back, and nothing is lost or made twice
  Nodes fail, processes are killed, the kube-apiserver is away for a while, a quota is full. The cluster mends it, or
  goes on when it is mended, and what a tenant asked for is there in the end, once. What a scenario makes fail is well
  again before the next one begins, also if the scenario fails or is cancelled.

  Scenario: A virtual machine leaves a node that fails
    Given the tenant "tenant-a"
    And "tenant-a" has the running virtual machine of "on-node-1-vm.yaml"
    When the node "node-1" fails
    Then the virtual machine runs on another node within 60 seconds
    And each arrow of its recovery is on record, by its own actor and in order

  Scenario: A virtual machine whose launcher pod is killed runs again
    Given the tenant "tenant-a"
    And "tenant-a" has the running virtual machine of "test-vm.yaml"
    When the launcher pod of the virtual machine is killed
    Then the virtual machine runs again within 60 seconds
    And each arrow of its recovery is on record, by its own actor and in order

  Scenario: A virtual machine that is created while the kube-apiserver is gone is created once
    Given the tenant "tenant-a"
    When the kube-apiserver is gone for 20 seconds
    And "tenant-a" creates the virtual machine of "test-vm.yaml"
    Then the gateway answers 201
    And the virtual machine runs within 60 seconds
    And the kube-apiserver answers again
    And "tenant-a" has created 1 virtual machine, and nothing was written while it was gone

  Scenario: A virtual machine that is asked for just before the kube-apiserver is gone runs
    Given the tenant "tenant-a"
    When "tenant-a" asks for the virtual machine "first" of "test-vm.yaml"
    And the kube-apiserver is gone for 10 seconds
    Then the virtual machine "first" runs within 60 seconds
    And the kube-apiserver answers again
    And "tenant-a" has created 1 virtual machine, and nothing was written while it was gone

  Scenario: A replica set whose quota is full goes on when the platform grants more
    Given the tenant "tenant-a" of "two-machines.yaml"
    And "tenant-a" has the replica set of "test-vmirs.yaml" with the autoscaler of "at-least-four-hpa.yaml"
    When the quota fills while the replica set scales
    Then it wants more than the 2 virtual machines that the quota lets run
    And it says why: "exceeded quota: tenant-a-quota"
    When the platform changes "tenant-a" to "four-machines.yaml"
    Then 4 virtual machines of the replica set are ready within 60 seconds
