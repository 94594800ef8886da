Feature: Tenants cannot reach each other
  A tenant has a namespace of its own, and a role that says what it may do there. It may do that, and nothing else:
  nothing in the namespace of another tenant, and nothing in the whole cluster. There are two doors, the IAM gateway
  and the kube-apiserver itself, and what is forbidden at one is forbidden at the other.
  Tenants are described in the folder `tenants` beside this file.

  Scenario: Tenants with different roles try every request there is
    Given the tenant "operator" of "operator.yaml"
    And the tenant "starter" of "machine-starter.yaml"
    And the tenant "viewer" of "viewer.yaml"
    And the tenant "newcomer" of "newcomer.yaml"
    When every tenant tries every request, in every namespace and in the whole cluster, at both doors
    Then each of them can do what its role says, and nothing else
    And the kube-apiserver's own log says the same of each request that reached it
    And no tenant has written anything outside its own namespace

  Scenario Outline: The role <role> gives what it says, and no more
    Given the tenant "tenant-a" of "<role>"
    And the tenant "neighbour"
    When every tenant tries every request, in every namespace and in the whole cluster, at both doors
    Then each of them can do what its role says, and nothing else
    And "tenant-a" can "<machines>" its own virtual machines
    And "tenant-a" can "<replica sets>" its own replica sets
    And "tenant-a" can "nothing" its own secrets

    Examples:
      | role                 | machines                                        | replica sets     |
      | operator.yaml        | get, list, create, update                       | nothing          |
      | machine-starter.yaml | get, list, create, update, start, stop, restart | nothing          |
      | viewer.yaml          | get, list, watch                                | get, list, watch |
      | newcomer.yaml        | nothing                                         | nothing          |

  Scenario Outline: A tenant cannot <act> of another, at the <door>
    Given the tenant "tenant-a" of "machine-starter.yaml"
    And the tenant "tenant-b"
    And "tenant-b" has the running virtual machine of "test-vm.yaml"
    And "tenant-b" has the secret "password"
    When "tenant-a" tries to <act> "<name>" of "tenant-b" at the <door>
    Then it is refused with 403 "Forbidden"

    Examples:
      | act                      | name     | door           |
      | read the secret          | password | gateway        |
      | read the secret          | password | kube-apiserver |
      | read the virtual machine | test-vm  | gateway        |
      | read the virtual machine | test-vm  | kube-apiserver |
      | stop the virtual machine | test-vm  | gateway        |
      | stop the virtual machine | test-vm  | kube-apiserver |

  Scenario Outline: All <kind> of the cluster are listed for no tenant, at the <door>
    Given the tenant "tenant-a" of "viewer.yaml"
    When "tenant-a" tries to list all <kind> of the cluster at the <door>
    Then it is refused with 403 "Forbidden"

    Examples:
      | kind             | door           |
      | virtual machines | gateway        |
      | virtual machines | kube-apiserver |
      | secrets          | gateway        |
      | secrets          | kube-apiserver |

  Scenario Outline: A token for the <audience> is worthless at the <door>
    Given the tenant "tenant-a"
    When "tenant-a" lists its own virtual machines at the <audience> with its token for the <audience>
    Then it is let in
    When "tenant-a" lists its own virtual machines at the <door> with its token for the <audience>
    Then it is refused with 401 "Unauthorized"

    Examples:
      | audience       | door           |
      | gateway        | kube-apiserver |
      | kube-apiserver | gateway        |

  Scenario Outline: A token that is <token> opens nothing
    Given the tenant "tenant-a"
    When somebody lists the virtual machines of "tenant-a" with a token that is <token>
    Then the gateway answers 401 "Unauthorized"
    And the answer says no more than that
    And the gateway's log says why: "<why>"

    Examples:
      | token                       | why                                 |
      | missing                     | there is no bearer token            |
      | malformed                   | there is no bearer token            |
      | made up                     | invalid bearer token                |
      | made for the kube-apiserver | is invalid for the target audiences |
      | signed with another key     | error in cryptographic primitive    |
      | unsigned                    | invalid bearer token                |

  Scenario Outline: A token is worthless soon after the <what> is deleted that it depends on
    Given the tenant "tenant-a"
    When the platform deletes the <what> that a token of "tenant-a" depends on
    Then the token, which worked before, is refused within 20 seconds
    And the gateway answers 401 "Unauthorized"
    And the answer says no more than that
    And the gateway's log says why: "<why>"

    Examples:
      | what            | why                  |
      | service account | invalid bearer token |
      | secret          | invalid bearer token |

  Scenario Outline: Nobody becomes another by the header <header>
    Given the tenant "tenant-a"
    And the tenant "tenant-b"
    When "tenant-a" claims to be "tenant-b" by the header "<header>"
    Then the gateway answers 400 "BadRequest"
    And nothing of it reaches the kube-apiserver

    Examples:
      | header                   |
      | Impersonate-User         |
      | Impersonate-Group        |
      | Impersonate-Uid          |
      | Impersonate-Extra-Scopes |
      | X-Remote-User            |
      | X-Remote-Group           |
      | X-Remote-Extra-Scopes    |
      | Authorization            |
