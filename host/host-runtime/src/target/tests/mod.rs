//! Tests of the target engine, on storage in memory and plugins that do what a test says.

mod ahead;
mod component;
mod create;
mod damage;
mod direct;
mod double;
mod early;
mod faults;
mod gather;
mod leave;
mod locks;
mod medium;
mod proof;
mod rest;
mod restart;
mod staged;
mod swap;
mod vendor;
mod worker;
mod world;
