plugins {
    id("com.android.application")
}

// The bundle; a relative path is from where gradle was called.
val bundle = providers.gradleProperty("bundle").map { gradle.startParameter.currentDir.resolve(it) }
    .getOrElse(rootDir.resolve("../..")).normalize()
for (name in listOf("model.tflite", "labels.txt", "preprocess.json", "golden/golden.json")) {
    // A copy from where nothing is would be skipped in silence.
    require(bundle.resolve(name).isFile) { "no $name in $bundle, which is no bundle: give -Pbundle=DIR" }
}

val copyBundle by tasks.registering(Sync::class) {
    from(bundle) { include("model.tflite", "labels.txt", "preprocess.json") }
    into(layout.buildDirectory.dir("bundle/main"))
}

val copyGolden by tasks.registering(Sync::class) {
    from(bundle) { include("golden/**") }
    into(layout.buildDirectory.dir("bundle/golden"))
}

android {
    namespace = "edgecv.classify"
    compileSdk = 36

    defaultConfig {
        applicationId = "edgecv.classify"
        minSdk = 24 // LiteRT's
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    androidResources {
        noCompress += "tflite" // it is mapped into memory where it lies
    }
    sourceSets {
        getByName("main").assets.directories.add(layout.buildDirectory.dir("bundle/main").get().asFile.path)
        getByName("androidTest").assets.directories.add(layout.buildDirectory.dir("bundle/golden").get().asFile.path)
    }
}

tasks.named("preBuild") { dependsOn(copyBundle, copyGolden) }

dependencies {
    implementation("com.google.ai.edge.litert:litert:2.3.0")
    androidTestImplementation("androidx.test:runner:1.7.0")
    androidTestImplementation("androidx.test.ext:junit:1.3.0")
}
