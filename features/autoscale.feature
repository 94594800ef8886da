Feature: Load makes virtual machines scale, out and in
  A replica set of virtual machines has an autoscaler: 1 to 10 replicas, CPU utilization 70 %. Real load on the
  guests makes it grow, the end of the load makes it shrink. Intermediate sizes are the autoscaler's own affair.

  Background:
    Given the tenant "tenant-a"
    And "tenant-a" has the replica set of "test-vmirs.yaml" with the autoscaler of "test-hpa.yaml"

  Scenario: A replica set follows its load
    When 28 users send 1 request a second each until the replica set has settled
    Then it has scaled out from 1 replica, and never past 10
    And it has settled within the autoscaler's tolerance
    And the latency has recovered to a P95 of at most 250 ms
    And it has scaled in to 1 replica after the load
    And each decision agrees with the autoscaler's metrics and policy, and virt-controller followed it
