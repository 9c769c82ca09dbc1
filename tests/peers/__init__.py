"""The kinds of cases that the test suites of neighbouring libraries keep, written anew for igr.

| kind, and whose suites keep it | here | elsewhere |
| --- | --- | --- |
| contract of a gradient transformation (optax: common, injection) | `test_transformations` | `transforms/test_rules_in_optax` |
| its optimizers, composed with rules (optax: alias) | `test_aliases` | `tracing/test_every_alias` |
| accumulation, conditional updates, masks, privacy (optax) | `test_wrappers` | `transforms/test_rules_in_optax` |
| parameters and batches on Auto and Explicit meshes (optax) | `test_layouts` | `test_meshes`, `transforms/test_sharded_rules`, `curvature/test_sharded`, `flows/test_sharded` |
| tables of B-series (BSeries.jl) | `test_b_series` | `backward_error/test_runge_kutta`, `test_series`, `test_trees` |
| adjoints, events, save points, dtypes of a solver (diffrax) | `test_solver` | `flows/test_solve` |
| traces, functions and densities of matrices (matfree) | `test_matrix_free` | `curvature/test_spectrum`, `curvature/test_eigenpairs` |
| Hessian, Gauss-Newton and Fisher products (curvlinops) | `test_dense_matrices` | `curvature/test_products`, `curvature/test_sgd_stability` |
| gradients of single examples by layer (opacus, BackPACK) | `test_layers` | `per_example/test_positions` |
| empirical kernels (neural-tangents) | `test_kernels` | `diagnostics/test_tangent_kernel` |

All are slow: run them with `pytest -m slow tests/peers`.
"""  # noqa: E501
