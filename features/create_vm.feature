Feature: A tenant creates a virtual machine
  A tenant has a namespace, a user and a role that allows get, list, create and update of virtual machines
  there, and nothing else. Its requests go through the IAM gateway, which lets the cluster decide.
  Manifests are in the folder `manifests` beside this file.

  Background:
    Given the tenant "tenant-a"

  Scenario: A virtual machine that a tenant creates runs
    When "tenant-a" creates the virtual machine of "test-vm.yaml"
    Then the gateway answers 201
    And the virtual machine runs within 60 seconds
    And each arrow of the create sequence is on record, by its own actor and in order

  Scenario: The document's own manifest is refused in the server's words
    When "tenant-a" creates the virtual machine of "volumes-inside-domain.yaml"
    Then the gateway answers 422 "Invalid"
    And the answer says "admission webhook "virtualmachine-validator.kubevirt.io" denied the request: spec.template.spec.domain.devices.disks[0].Name 'bootdisk' not found."
    And the answer warns "unknown field "spec.template.spec.domain.volumes""
    And "tenant-a" has no virtual machine

  Scenario: The deprecated field running is accepted with a warning
    When "tenant-a" creates the virtual machine of "running-deprecated.yaml"
    Then the gateway answers 201
    And the answer warns "spec.running is deprecated, please use spec.runStrategy instead."
    And the virtual machine runs within 60 seconds

  Scenario: The fields running and runStrategy exclude each other
    When "tenant-a" creates the virtual machine of "running-and-run-strategy.yaml"
    Then the gateway answers 422 "Invalid"
    And the answer says "Running and RunStrategy are mutually exclusive"
    And "tenant-a" has no virtual machine

  Scenario: A token that nobody issued opens nothing
    When somebody lists the virtual machines of "tenant-a" with a token that is made up
    Then the gateway answers 401 "Unauthorized"

  Scenario: Another tenant's namespace is out of reach
    Given the tenant "tenant-b"
    When "tenant-a" creates the virtual machine of "test-vm.yaml" in the namespace of "tenant-b"
    Then the gateway answers 403 "Forbidden"
    And the answer says "cannot create resource "virtualmachines" in API group "kubevirt.io""
    And "tenant-b" has no virtual machine

  Scenario: Deleting is not among a tenant's verbs
    Given "tenant-a" has the running virtual machine of "test-vm.yaml"
    When "tenant-a" deletes the virtual machine "test-vm"
    Then the gateway answers 403 "Forbidden"
    And the answer says "cannot delete resource "virtualmachines" in API group "kubevirt.io""
    And "tenant-a" has the virtual machine "test-vm"
