buildscript {
    repositories {
        google()
        mavenCentral()
    }
    dependencies {
        // LiteRT's classes are of Kotlin 2.4; the Android plugin's own Kotlin, 2.2.10, reads no newer ones than 2.3.
        classpath("org.jetbrains.kotlin:kotlin-gradle-plugin:2.4.0")
    }
}

plugins {
    id("com.android.application") version "9.1.0" apply false
}
