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
    And the kube-apiserver's own log says the same of each request
    And no tenant has written anything outside its own namespace

  Scenario Outline: A tenant of <role> can do no more than it says
    Given the tenant "tenant-a" of "<role>"
    And the tenant "neighbour"
    When every tenant tries every request, in every namespace and in the whole cluster, at both doors
    Then each of them can do what its role says, and nothing else
    And "tenant-a" can "<machines>" its virtualmachines
    And "tenant-a" can "<start>" its virtualmachines/start
    And "tenant-a" can "<replicasets>" its virtualmachineinstancereplicasets
    And "tenant-a" can "nothing" its secrets

    Examples:
      | role                 | machines                  | start   | replicasets      |
      | operator.yaml        | get, list, create, update | nothing | nothing          |
      | machine-starter.yaml | get, list, create, update | update  | nothing          |
      | viewer.yaml          | get, list, watch          | nothing | get, list, watch |
      | newcomer.yaml        | nothing                   | nothing | nothing          |

  Scenario Outline: A tenant cannot <verb> the <resource> of another at the <door>
    Given the tenant "tenant-a" of "machine-starter.yaml"
    And the tenant "tenant-b"
    And "tenant-b" has the running virtual machine of "test-vm.yaml"
    And "tenant-b" has the secret "password"
    When "tenant-a" tries to <verb> the <resource> "<name>" of "tenant-b" at the <door>
    Then it is refused with 403 "Forbidden"

    Examples:
      | verb   | resource              | name     | door           |
      | get    | secrets               | password | gateway        |
      | get    | secrets               | password | kube-apiserver |
      | get    | virtualmachines       | test-vm  | gateway        |
      | get    | virtualmachines       | test-vm  | kube-apiserver |
      | update | virtualmachines/stop  | test-vm  | gateway        |
      | update | virtualmachines/stop  | test-vm  | kube-apiserver |

  Scenario Outline: The <resource> of the whole cluster are not listed at the <door>
    Given the tenant "tenant-a" of "viewer.yaml"
    When "tenant-a" tries to list the <resource> of the whole cluster at the <door>
    Then it is refused with 403 "Forbidden"

    Examples:
      | resource        | door           |
      | virtualmachines | gateway        |
      | virtualmachines | kube-apiserver |
      | secrets         | gateway        |
      | secrets         | kube-apiserver |

  Scenario Outline: A token for the <audience> is worthless at the <door>
    Given the tenant "tenant-a"
    When "tenant-a" lists its virtualmachines at the <audience> with its token for the <audience>
    Then it is let in
    When "tenant-a" lists its virtualmachines at the <door> with its token for the <audience>
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
      | token                       | why                                       |
      | missing                     | there is no bearer token                  |
      | malformed                   | there is no bearer token                  |
      | made up                     | invalid bearer token                      |
      | made for the kube-apiserver | is invalid for the target audiences       |
      | signed with another key     | error in cryptographic primitive          |
      | unsigned                    | invalid bearer token                      |
      | expired                     | invalid bearer token                      |
      | not valid yet               | invalid bearer token                      |

  Scenario Outline: A token is worthless soon after its <what> is deleted
    Given the tenant "tenant-a"
    When the platform deletes the <what> of a token that "tenant-a" uses, and it is refused within 20 seconds
    Then the gateway answers 401 "Unauthorized"
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
