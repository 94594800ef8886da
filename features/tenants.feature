Feature: Many tenants share a cluster
  Each tenant has a namespace of its own. They come at the same time, and each is served as if it were alone.

  Scenario: A hundred tenants come at once, and each sees its own
    Given 100 tenants
    When each of them creates the virtual machine of "halted-vm.yaml"
    Then each of them sees its own virtual machine, and no other
    And each of them is refused those of the next
