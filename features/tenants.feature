Feature: Many tenants share a cluster
  Each tenant has a namespace of its own, and reads its virtual machines through the IAM gateway. The tenants are made,
  and ask, twenty-five at a time.

  Scenario: A hundred tenants share a cluster, and each sees its own
    Given 100 tenants
    When each of them creates the virtual machine of "halted-vm.yaml"
    Then each of them sees its own virtual machine, and no other
    And each of them is refused the list of the next one's
