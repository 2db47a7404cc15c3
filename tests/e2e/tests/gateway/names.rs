//! The longest names that the services allow.

use e2e::{Cloud, Gateway, Update, image};

#[test]
fn the_longest_thing_job_and_stream_names_complete_an_update() {
    // AWS IoT: 128 bytes for things and streams, 64 for jobs; an update's job begins with `AFR_OTA-`.
    let thing = "gateway:of_the-North".repeat(7)[..128].to_owned();
    let cloud = Cloud::start();
    let gateway = Gateway::new(&cloud, &thing);
    gateway.init(&image::program("1.0.0", "", 9000));
    let _daemon = gateway.run();
    let job = cloud.update(
        &thing,
        Update {
            update_id: Some("u".repeat(56)),
            stream_id: Some("AFR_OTA-stream_".repeat(9)[..128].to_owned()),
            ..Update::of(image::program("1.1.0", "", 9000))
        },
    );
    assert_eq!(job.as_str().len(), 64);
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    let device = &gateway.status()["devices"][0];
    assert_eq!(device["device"], thing);
    assert_eq!(device["targets"][0]["running_version"], "1.1.0");
}
