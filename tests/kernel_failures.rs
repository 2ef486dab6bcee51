
#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn mount_points_outlive_a_power_cut_and_a_full_disk_is_named() {
    boot("mount-point", &["ubdb", "ubdc", "ubdd"]);
}
